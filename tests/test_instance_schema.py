"""Requests that are generated from the API schema. None of them causes a server error."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from datapilot_defer.instance.settings import InstanceSettings
from tests.support.instance_calls import make_integration, manifest, onboard
from tests.support.instances import running_instance


@pytest.mark.slow
@pytest.mark.parametrize("signed_in", [False, True])
def test_no_request_generated_from_the_schema_causes_a_server_error(
    tmp_path: Path, signed_in: bool
) -> None:
    with running_instance(tmp_path, settings=InstanceSettings(requests_per_minute=0)) as instance:
        onboard(instance, make_integration(instance), manifest())
        headers = (
            [word for pair in instance.headers.items() for word in ("-H", ": ".join(pair))]
            if signed_in
            else []
        )
        options = (
            "--checks",
            "not_a_server_error",
            "--phases",
            "coverage,fuzzing",
            "--max-examples",
            "10",
        )
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "schemathesis.cli",
                "run",
                f"{instance.url}/openapi.json",
                *options,
                "--seed",
                "1",
                *headers,
            ],
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    assert done.returncode == 0, done.stdout
    assert re.search(r"(\d+) generated, \1 passed", done.stdout), done.stdout
