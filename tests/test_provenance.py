"""Commit, branch and build URL of an upload, without secrets and with limited lengths."""

from __future__ import annotations

from pathlib import Path

import pytest

from datapilot_defer import ci
from tests.support.commands import datapilot
from tests.support.protocol_server import ProtocolServer

PASSWORD = "c4n4ry-passw0rd"
JENKINS = {"JENKINS_URL": "https://ci.example.com/"}
BUILD_URLS = {
    "https://ci.example.com/job/shop/15/": "https://ci.example.com/job/shop/15/",
    f"https://ann:{PASSWORD}@ci.example.com/job/1": "https://ci.example.com/job/1",
    f"https://{PASSWORD}@ci.example.com:8443/job?x=@": "https://ci.example.com:8443/job?x=@",
    f"https://ann:{PASSWORD}@{PASSWORD}@ci.example.com/": "https://ci.example.com/",
    f"https://ann:{PASSWORD}%40x@ci.example.com": "https://ci.example.com",
    f"https:/\n/ann:{PASSWORD}@ci.example.com/": "https://ci.example.com/",
    f"HTTPS://ann:{PASSWORD}@ci.example.com/": "HTTPS://ci.example.com/",
    f"https:/ann:{PASSWORD}@ci.example.com/": "https:/ci.example.com/",
    f"https:\\\\ann:{PASSWORD}@ci.example.com/": "https:\\\\ci.example.com/",
    f"//ann:{PASSWORD}@ci.example.com/": "//ci.example.com/",
    f"ann:{PASSWORD}@ci.example.com/job": "ci.example.com/job",
    f"https://ann:{PASSWORD * 100}@ci.example.com/": "https://ci.example.com/",
    f"https://ann:{PASSWORD}/{PASSWORD}@ci.example.com/": None,
    f"https://ann:{PASSWORD}@[ci.example.com/": None,
    "https://ci.example.com/@ann/shop": "https://ci.example.com/@ann/shop",
    " https://ci.example.com/\r\n\x1b[31m\u202e\x00": "https://ci.example.com/[31m",
    f"https://ci.example.com/{'x' * 5000}": f"https://ci.example.com/{'x' * 977}",
    "\n\t": None,
    "airflow://dag/task/manual__2026-11-24T00:00:00+00:00": (
        "airflow://dag/task/manual__2026-11-24T00:00:00+00:00"
    ),
}


@pytest.mark.parametrize("build_url", BUILD_URLS)
def test_build_url_has_no_user_info(build_url: str) -> None:
    run = ci.detect_ci({**JENKINS, "BUILD_URL": build_url})
    assert run is not None
    assert run.build_url == BUILD_URLS[build_url]
    assert PASSWORD not in repr(run)


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        ("origin/main", "origin/main"),
        ("feature/\u00fcbersicht", "feature/\u00fcbersicht"),
        ("main\r\nadmin revoked all tokens\t\x1b[2J", "main admin revoked all tokens [2J"),
        ("main\u202e\u200b\u2028x", "main x"),
        ("\udc80", None),
        ("x" * 5000, "x" * 250),
    ],
)
def test_commit_and_branch_are_one_printable_line_each(value: str, fact: str | None) -> None:
    run = ci.detect_ci({**JENKINS, "GIT_BRANCH": value, "GIT_COMMIT": value})
    assert run is not None
    assert (run.branch, run.commit) == (fact, fact)


def test_onboard_sends_build_url_without_password(hosted: ProtocolServer, artifacts: Path) -> None:
    environment = {
        **JENKINS,
        "BUILD_URL": f"https://ann:{PASSWORD}@ci.example.com/job/1",
        "GIT_BRANCH": "main\nforged line",
    }
    done = datapilot(
        *("dbt", "onboard", "--integration-id", 7),
        *("--manifest-path", artifacts / "manifest.json"),
        env={**hosted.access, **environment},
    )
    assert done.exit_code == 0, done.output
    verify = next(request for request in hosted.requests if request.path.endswith("verify_upload"))
    assert verify.json["build_url"] == "https://ci.example.com/job/1"
    assert verify.json["branch"] == "main forged line"
    assert not any(PASSWORD.encode() in request.body for request in hosted.requests)
