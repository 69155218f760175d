"""Names of integrations, environments and tokens, which are visible and case-insensitive."""

from __future__ import annotations

import sqlite3
import unicodedata
from contextlib import closing

import pytest
import requests

from datapilot_defer.errors import UsageError
from datapilot_defer.instance.services.names import validate_environment_name, validate_name
from datapilot_defer.storage import integrations
from tests.support.commands import datapilot
from tests.support.instance_calls import call, make_integration
from tests.support.instances import RunningInstance

INVISIBLE = {
    "zero width space": "\u200b",
    "zero width non-joiner": "\u200c",
    "zero width joiner": "\u200d",
    "left-to-right mark": "\u200e",
    "right-to-left override": "\u202e",
    "first strong isolate": "\u2068",
    "Arabic letter mark": "\u061c",
    "word joiner": "\u2060",
    "byte order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "combining grapheme joiner": "\u034f",
    "Hangul choseong filler": "\u115f",
    "Hangul filler": "\u3164",
    "halfwidth Hangul filler": "\uffa0",
    "Khmer inherent vowel": "\u17b4",
    "Mongolian variation selector": "\u180b",
    "variation selector 16": "\ufe0f",
    "variation selector 17": "\U000e0100",
    "tag": "\U000e0061",
    "empty Braille pattern": "\u2800",
    "null notehead": "\U0001d159",
    "musical symbol begin beam": "\U0001d173",
    "tabulator": "\t",
    "line feed": "\n",
    "carriage return": "\r",
    "escape": "\x1b",
    "delete": "\x7f",
    "next line": "\x85",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "private use": "\ue000",
    "unassigned": "\u0378",
}


def create(instance: RunningInstance, name: str, environment: str = "PROD") -> requests.Response:
    body = {"name": name, "environment": environment}
    return call(instance, "POST", "dbt/v1/project_integration", json=body)


def names(instance: RunningInstance) -> list[str]:
    listed = call(instance, "GET", "dbt/v1/project_integrations").json()
    return [integration["name"] for integration in listed]


@pytest.mark.parametrize("character", INVISIBLE.values(), ids=INVISIBLE)
def test_invisible_character_is_rejected_and_named(character: str) -> None:
    for kind in ("integration", "environment", "token"):
        with pytest.raises(UsageError, match=rf"invalid {kind} name: it contains U\+[0-9A-F]+,"):
            validate_name(f"sh{character}op", kind, 200)


def test_api_rejects_invisible_character_without_repeating_it(
    instance: RunningInstance,
) -> None:
    for name, environment in (("sh\u200bop", "PROD"), ("shop", "PR\u202eOD")):
        answer = create(instance, name, environment)
        assert answer.status_code == 422
        assert "which is invisible or cannot be printed" in answer.json()["detail"]
        assert answer.text.isprintable()
    assert names(instance) == []


@pytest.mark.parametrize(
    "variant",
    [
        "Shop Café",
        "SHOP CAFÉ",
        "shop cafe\u0301",
        "\uff53\uff48\uff4f\uff50\u3000caf\xe9",
        "shop\u00a0café",
        " shop café ",
    ],
)
def test_variants_of_name_select_same_integration(instance: RunningInstance, variant: str) -> None:
    integration_id = make_integration(instance, "shop café")
    taken = create(instance, variant)
    assert taken.status_code == 409
    message = f"integration {integration_id} already has the name 'shop café'"
    assert message in taken.json()["detail"]
    added = create(instance, variant, "STAGING")
    assert added.json()["dbt_core_integration_id"] == integration_id
    assert names(instance) == ["shop café"]


@pytest.mark.parametrize("pair", [("Straße", "STRASSE"), ("ΣΊΣΥΦΟΣ", "σίσυφος"), ("ﬁn", "FIN")])
def test_case_is_ignored_beyond_ascii_letters(
    instance: RunningInstance, pair: tuple[str, str]
) -> None:
    make_integration(instance, pair[0])
    assert create(instance, pair[1]).status_code == 409


def test_name_keeps_case_and_is_stored_in_nfkc(instance: RunningInstance) -> None:
    make_integration(instance, unicodedata.normalize("NFD", "Größe №1"), "Prod")
    assert names(instance) == ["Größe No1"]


def test_visible_names_of_all_kinds_are_accepted() -> None:
    for name in (
        "a",
        "Größe",
        "注文",
        "заказы",
        "طلبات",
        "ऑर्डर",
        "🛒 shop",
        "a/b",
        "it's <b>",
        "x" * 200,
    ):
        assert validate_name(name, "integration", 200) == name


@pytest.mark.parametrize("name", ["", " ", "\u3000", "x" * 201, "\ufdfa" * 12])
def test_empty_or_long_name_is_rejected(name: str) -> None:
    with pytest.raises(UsageError, match="use 1 to 200 characters"):
        validate_name(name, "integration", 200)


@pytest.mark.parametrize("name", [".", "..", "a/b", "a\\b", "\uff0f", "\uff0e", "\u2024\u2024"])
def test_normalized_environment_is_one_path_segment(name: str) -> None:
    with pytest.raises(UsageError, match="it must be valid in a URL path"):
        validate_environment_name(name)


def test_token_requires_visible_name(instance: RunningInstance) -> None:
    words = ("instance", "token", "create", "--data", instance.data, "--scope", "read", "--name")
    for name in ("ci\u202e", "ci\nsecond line", " "):
        done = datapilot(*words, name)
        assert done.exit_code == 2
        assert "invalid token name" in done.stderr
    assert datapilot(*words, "CI of Größe").exit_code == 0


def test_case_variants_of_release_0_1_0_are_found(instance: RunningInstance) -> None:
    for name in ("shop", "other"):
        make_integration(instance, name)
    with closing(sqlite3.connect(instance.data / "records.sqlite3")) as database, database:
        # Release 0.1.0 writes a name without a key.
        database.execute("UPDATE integration SET name = 'Shop', name_key = NULL WHERE id = 2")
    with instance.storage.database.read() as connection:
        integrations_by_name = {
            name: integrations.find_integration_by_name(connection, 1, name)
            for name in ("shop", "Shop", "SHOP", "other")
        }
    assert {name: each and each.id for name, each in integrations_by_name.items()} == {
        "shop": 1,
        "Shop": 2,
        "SHOP": 1,
        "other": None,
    }


def test_name_without_key_is_unique_regardless_of_case(instance: RunningInstance) -> None:
    make_integration(instance, "shop")
    with closing(sqlite3.connect(instance.data / "records.sqlite3")) as connection, connection:
        connection.execute("UPDATE integration SET name_key = NULL")
    assert create(instance, "SHOP").status_code == 409
    renamed = call(instance, "PATCH", "dbt/v1/project_integrations/1", json={"name": "Shop"})
    assert renamed.json()["name"] == "Shop"
    assert create(instance, "shop").status_code == 409


def test_instance_name_that_differs_only_in_case_is_rejected(instance: RunningInstance) -> None:
    words = ("instance", "init", "--data", instance.data, "--instance-name")
    done = datapilot(*words, "ACME")
    assert done.exit_code == 2
    assert "differs from the existing 'acme' only in case" in done.stderr
    assert datapilot(*words, "acme2").exit_code == 0
