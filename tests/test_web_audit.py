"""The page of the audit log."""

from __future__ import annotations

import re

import pytest

from datapilot_defer.storage.audit import Actor, AuditAction, record_event
from tests.support.instances import RunningInstance
from tests.support.visits import INTEGRATIONS, Visit, text_of

AUDIT = "/settings/audit"


@pytest.fixture
def admin(instance: RunningInstance) -> Visit:
    return Visit(instance, instance.token)


def add_events(instance: RunningInstance, count: int) -> None:
    with instance.storage.database.write() as connection:
        for number in range(count):
            record_event(
                connection,
                1,
                Actor("<b>job</b>", address="192.0.2.7"),
                AuditAction.ARTIFACT_RESTORED,
                integration_id=7,
                detail=f"event {number:03d}.",
            )


def test_an_event_is_shown_with_actor_time_and_address(
    instance: RunningInstance, admin: Visit
) -> None:
    add_events(instance, 1)
    page = admin.get(AUDIT)
    assert "artifact.restore event 000. 7 <b>job</b> 192.0.2.7" in text_of(page)
    assert "<b>job" not in page.text
    assert f'href="{INTEGRATIONS}/7"' in page.text


def test_events_are_paged_from_new_to_old(instance: RunningInstance, admin: Visit) -> None:
    add_events(instance, 120)
    seen: list[str] = []
    path = AUDIT
    while path:
        page = admin.get(path).text
        seen += re.findall(r"event \d{3}\.", page)
        link = re.search(r'rel="next" href="([^"]*)"', page)
        path = link.group(1) if link else ""
    assert seen == [f"event {number:03d}." for number in reversed(range(120))]
    assert "There are no older entries." in text_of(admin.get(f"{AUDIT}?before=1"))


def test_the_page_requires_an_admin(instance: RunningInstance) -> None:
    reader = Visit(instance, instance.new_token("read", "upload"))
    assert reader.get(AUDIT).status_code == 403
    assert AUDIT not in reader.get(INTEGRATIONS).text


@pytest.mark.parametrize("before", ["0", "x", "99999999999"])
def test_an_invalid_page_is_reported(admin: Visit, before: str) -> None:
    assert admin.get(f"{AUDIT}?before={before}").status_code == 422
