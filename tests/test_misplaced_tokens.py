"""Tokens in place of an id or a name, which messages must not repeat."""

from __future__ import annotations

from pathlib import Path

import pytest

from datapilot_defer.cli.options import IdType
from tests.support.commands import LEAVES, access, datapilot
from tests.support.instances import RunningInstance

ID_PARAMETERS = [
    (dotted, parameter.opts[0])
    for dotted, command in LEAVES.items()
    for parameter in command.params
    if isinstance(parameter.name, str) and parameter.name.endswith("_id")
]
FOREIGN_TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(("dotted", "word"), ID_PARAMETERS)
def test_id_options_use_type_that_hides_values(dotted: str, word: str) -> None:
    types = {parameter.opts[0]: parameter.type for parameter in LEAVES[dotted].params}
    assert isinstance(types[word], IdType)


@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_token_instead_of_id_is_hidden(tmp_path: Path, json_option: tuple[str, ...]) -> None:
    words = ("instance", "token", "revoke", "--data", tmp_path, FOREIGN_TOKEN, *json_option)
    rejected = datapilot(*words)
    assert rejected.exit_code == 2
    assert "an ID is an integer" in rejected.output
    assert FOREIGN_TOKEN not in rejected.output


@pytest.mark.parametrize(
    "words",
    [
        ("dbt", "integrations", "show", "--integration-name"),
        ("dbt", "integrations", "undelete", "--integration-name"),
        ("dbt", "pull", "--at"),
        ("dbt", "pull", "--max-age"),
        ("dbt", "onboard", "--allow"),
    ],
)
def test_token_instead_of_name_is_hidden(instance: RunningInstance, words: tuple[str, ...]) -> None:
    for json_option in ((), ("--json",)):
        failed = datapilot(*words, instance.token, *json_option, env=access(instance))
        assert failed.exit_code != 0
        assert instance.token not in failed.output


def test_token_instead_of_instance_name_is_hidden(instance: RunningInstance) -> None:
    words = ("token", "list", "--data", instance.data, "--instance-name", instance.token)
    failed = datapilot("instance", *words)
    assert failed.exit_code == 4
    assert "instance 'dpd_***' not found" in failed.stderr
    assert instance.token not in failed.output
