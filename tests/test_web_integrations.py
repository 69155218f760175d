"""The pages that list, create, rename and delete integrations."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from datapilot_defer.instance.services import overviews, tokens
from datapilot_defer.storage import integrations
from tests.support.instance_calls import call, fetch, make_integration, manifest, onboard
from tests.support.instances import RunningInstance
from tests.support.visits import INTEGRATIONS, Visit, text_of


@pytest.fixture
def admin(instance: RunningInstance) -> Visit:
    return Visit(instance, instance.token)


def test_an_integration_is_a_row_with_its_current_manifest(
    instance: RunningInstance, admin: Visit
) -> None:
    integration_id = make_integration(instance, environment="STAGING")
    make_integration(instance, environment="prod")
    make_integration(instance, "empty")
    onboard(instance, integration_id, manifest("a", "b", "c"), environment="prod")
    page = admin.get(INTEGRATIONS)
    text = text_of(page)
    # The name leads to PROD, although STAGING is older.
    assert f'<a href="{INTEGRATIONS}/{integration_id}/prod"><bdi>shop</bdi></a>' in page.text
    assert f'<a href="{INTEGRATIONS}/{integration_id}/STAGING">' in page.text
    size = f"{len(manifest('a', 'b', 'c')) / 1000:.1f} kB"
    assert re.search(r"just now \d{4}-\d\d-\d\d \d\d:\d\d UTC 1\.11\.16 3 " + re.escape(size), text)
    assert "no upload yet" in text
    assert "1 to 2 of 2" in text
    # The command is on the page of the environment.
    assert "datapilot dbt onboard" not in text


def test_an_added_integration_is_shown_with_its_escaped_name(
    instance: RunningInstance, admin: Visit
) -> None:
    shown = admin.send(
        f"{INTEGRATIONS}/add",
        name="Ann's <b>shop</b>",
        environment="it's PROD?",
        integration_type="dbt_cloud",
    )
    assert shown.status_code == 200
    assert shown.url == f"{instance.url}{INTEGRATIONS}/1/it%27s%20PROD%3F?done=added"
    assert "The integration was created." in text_of(shown)
    assert "No manifest has been uploaded yet." in text_of(shown)
    assert "<b>shop" not in shown.text
    listed = admin.get(INTEGRATIONS).text
    assert "Ann&#39;s &lt;b&gt;shop&lt;/b&gt;" in listed
    assert "<b>shop" not in listed


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"name": "shop", "environment": "PROD"}, 409),
        ({"name": "", "environment": "typed environment"}, 422),
        ({"environment": "typed environment"}, 422),
        ({"name": "typed name", "environment": "a/b"}, 422),
        ({"name": "typed name", "environment": "PROD", "integration_type": "other"}, 422),
    ],
)
def test_a_rejected_form_keeps_what_was_typed(
    instance: RunningInstance, admin: Visit, fields: dict[str, Any], status: int
) -> None:
    make_integration(instance)
    answer = admin.send(f"{INTEGRATIONS}/add", **fields)
    assert answer.status_code == status
    assert 'role="alert"' in answer.text
    for field in ("name", "environment"):
        assert f'value="{fields.get(field, "")}"' in answer.text
    assert len(call(instance, "GET", "dbt/v1/project_integrations").json()) == 1


def test_many_integrations_are_paged_and_searched(instance: RunningInstance, admin: Visit) -> None:
    add_integrations(instance, 85)
    listed = admin.get(INTEGRATIONS)
    assert "project 00049" in listed.text
    assert "project 00050" not in listed.text
    assert "1 to 50 of 85" in text_of(listed)
    second = admin.get(f"{INTEGRATIONS}?page=2")
    assert "project 00050" in second.text
    assert "51 to 85 of 85" in text_of(second)
    assert "Page 3 does not exist" in text_of(admin.get(f"{INTEGRATIONS}?page=3"))
    matches = admin.get(INTEGRATIONS, params={"q": " JECT 00084 "})
    assert "1 to 1 of 1" in text_of(matches)
    missing = admin.get(INTEGRATIONS, params={"q": "<i>%"})
    assert "No integration has a name that contains “<i>%”" in text_of(missing)


def test_a_search_keeps_its_words_on_the_next_page(instance: RunningInstance, admin: Visit) -> None:
    add_integrations(instance, 85)
    first = admin.get(INTEGRATIONS, params={"q": "project & 0"})
    assert "No integration" in first.text
    first = admin.get(INTEGRATIONS, params={"q": "project"})
    link = re.search(r'rel="next" href="([^"]*)"', first.text)
    assert link is not None
    second = admin.get(INTEGRATIONS + link.group(1).replace("&amp;", "&"))
    assert "51 to 85 of 85" in text_of(second)


def test_a_page_of_10000_integrations_takes_as_many_statements_as_one_of_10(
    instance: RunningInstance, admin: Visit
) -> None:
    principal = tokens.authenticate_token(instance.storage, instance.token)
    assert principal is not None
    add_integrations(instance, 10)
    with counted_statements(instance) as few:
        overviews.list_integration_rows(instance.storage, principal, offset=0, limit=50)
    add_integrations(instance, 9990, first=10)
    with counted_statements(instance) as many:
        overviews.list_integration_rows(instance.storage, principal, offset=4950, limit=50)
    assert many == few
    assert "4,951 to 5,000 of 10,000" in text_of(admin.get(f"{INTEGRATIONS}?page=100"))
    started_at = time.monotonic()
    admin.get(INTEGRATIONS, params={"q": "9999"})
    assert time.monotonic() - started_at < 5


def test_an_integration_is_renamed(instance: RunningInstance, admin: Visit) -> None:
    integration_id = make_integration(instance)
    make_integration(instance, "other")
    answer = admin.send(f"{INTEGRATIONS}/rename/{integration_id}", name="other")
    assert answer.status_code == 409
    assert 'value="other"' in answer.text
    answer = admin.send(f"{INTEGRATIONS}/rename/{integration_id}", name="bakery")
    assert "The integration was renamed." in text_of(answer)
    assert "<bdi>bakery</bdi>" in answer.text


def test_an_environment_is_added(instance: RunningInstance, admin: Visit) -> None:
    integration_id = make_integration(instance)
    path = f"{INTEGRATIONS}/add-environment/{integration_id}"
    rejected = admin.send(path, environment="prod")
    assert rejected.status_code == 409
    assert 'value="prod"' in rejected.text
    added = admin.send(path, environment="STAGING")
    assert added.url.endswith(f"/{integration_id}/STAGING?done=environment")


def test_an_integration_is_deleted_only_with_its_name_and_the_deletion_can_be_undone(
    instance: RunningInstance, admin: Visit
) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest())
    path = f"{INTEGRATIONS}/delete/{integration_id}"
    kept = admin.send(path, name="sho")
    assert kept.status_code == 422
    assert 'value="sho"' in kept.text
    assert "the name does not match" in text_of(kept)
    assert fetch(instance, integration_id).status_code == 200

    deleted = admin.send(path, name=" shop ")
    assert "The integration was deleted." in text_of(deleted)
    assert "Recently deleted (1)" in text_of(deleted)
    assert "There are no integrations yet." in text_of(deleted)
    assert fetch(instance, integration_id).status_code == 404

    undo = f"{INTEGRATIONS}/undelete/{integration_id}"
    assert f'href="{undo}"' in deleted.text
    confirmation = admin.get(undo)
    assert "Undo the deletion of “shop”?" in text_of(confirmation)
    assert fetch(instance, integration_id).status_code == 404
    restored = admin.send(undo)
    assert "The integration was restored." in text_of(restored)
    assert fetch(instance, integration_id).status_code == 200
    assert "Recently deleted" not in admin.get(INTEGRATIONS).text
    # A second confirmation has nothing to undo.
    assert admin.get(undo).url == f"{instance.url}{INTEGRATIONS}"


def test_a_form_that_ended_at_the_sign_in_page_leads_back_to_its_page(
    instance: RunningInstance, admin: Visit
) -> None:
    integration_id = make_integration(instance)
    for action in ("rename", "delete", "add-environment"):
        page = admin.get(f"{INTEGRATIONS}/{action}/{integration_id}")
        assert page.url == f"{instance.url}{INTEGRATIONS}/{integration_id}"


def test_a_reader_sees_no_forms_and_can_send_none(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    reader = Visit(instance, instance.new_token("read"))
    assert f"{INTEGRATIONS}/add" not in reader.get(INTEGRATIONS).text
    page = reader.get(f"{INTEGRATIONS}/{integration_id}")
    assert "<form" not in page.text.replace('<form method="post" action="/sign-out"', "")
    assert reader.get(f"{INTEGRATIONS}/add").status_code == 403
    forms: dict[str, dict[str, Any]] = {
        "add": {"name": "x", "environment": "PROD"},
        f"rename/{integration_id}": {"name": "x"},
        f"delete/{integration_id}": {"name": "shop"},
        f"undelete/{integration_id}": {},
        f"add-environment/{integration_id}": {"environment": "x"},
    }
    for path, fields in forms.items():
        assert reader.send(f"{INTEGRATIONS}/{path}", **fields).status_code == 403, path


def test_a_token_for_one_integration_lists_only_this_one(instance: RunningInstance) -> None:
    make_integration(instance, "first")
    second = make_integration(instance, "second")
    visit = Visit(instance, instance.new_token("read", integration_id=second))
    text = text_of(visit.get(INTEGRATIONS))
    assert "second" in text
    assert "first" not in text
    assert "1 to 1 of 1" in text


def add_integrations(instance: RunningInstance, count: int, first: int = 0) -> None:
    """Create integrations "project 00000", "project 00001", …, each with PROD."""
    with instance.storage.database.write() as connection:
        for number in range(first, first + count):
            integration = integrations.create_integration(
                connection, 1, name=f"project {number:05d}", integration_type="dbt_core"
            )
            integrations.add_environment(connection, integration.id, "PROD")


@contextmanager
def counted_statements(instance: RunningInstance) -> Iterator[Counter[str]]:
    """Count the beginnings of the statements that this thread executes."""
    statements: Counter[str] = Counter()
    engine = instance.storage.database._engine
    own_thread = threading.get_ident()

    def count(*arguments: object) -> None:
        if threading.get_ident() == own_thread:
            statements[str(arguments[2])[:40]] += 1

    event.listen(engine, "before_cursor_execute", count)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", count)
