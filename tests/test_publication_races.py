"""Races between the verification of an upload and its publication."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from datapilot_defer.errors import NotFound
from datapilot_defer.instance.services import artifacts, integrations, tokens, uploads
from datapilot_defer.instance.services.principal import AuthenticationFailed, Principal
from datapilot_defer.instance.verification import Verification
from datapilot_defer.instance.worker import VerificationWorker
from datapilot_defer.storage import tokens as token_records
from datapilot_defer.storage import uploads as upload_records
from datapilot_defer.storage.integrations import UploadCheck
from tests.support.instance_calls import (
    call,
    make_integration,
    manifest,
    onboard,
    pull,
    show,
    upload,
    verify,
)
from tests.support.instances import RunningInstance

CURRENT = manifest("a", "b", "c", "d", at="2026-11-22T10:00:00Z")
NEWER = manifest("a", "b", "c", "d", at="2026-11-22T11:00:00Z")
WRONG = manifest("a", project="other", at="2026-11-21T10:00:00Z")


@pytest.fixture
def integration_id(instance: RunningInstance) -> int:
    new_id = make_integration(instance)
    onboard(instance, new_id, CURRENT)
    return new_id


def interfere(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> list[Verification]:
    """Run an action after each verification, and return the list of their results."""
    original = VerificationWorker.verify
    verifications = []

    def verify_and_act(*arguments: Any) -> Verification:
        verification = original(*arguments)
        verifications.append(verification)
        action()
        return verification

    monkeypatch.setattr(VerificationWorker, "verify", verify_and_act)
    return verifications


def principal_of(instance: RunningInstance, token: str) -> Principal:
    principal = tokens.authenticate_token(instance.storage, token)
    assert principal is not None
    return principal


def revoke(instance: RunningInstance, principal: Principal) -> None:
    with instance.storage.database.write() as connection:
        assert token_records.revoke_token(connection, 1, principal.token.id)


def delete(instance: RunningInstance, integration_id: int) -> None:
    admin = principal_of(instance, instance.token)
    integrations.delete_integration(instance.storage, admin, integration_id=integration_id)


def test_an_invalid_upload_is_verified_only_once(
    instance: RunningInstance, integration_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifications = interfere(monkeypatch, lambda: None)
    file_id = upload(instance, integration_id, CURRENT[:-5])
    first = verify(instance, file_id)
    second = verify(instance, file_id, force=True)
    assert len(verifications) == 1
    assert (first.status_code, second.status_code) == (422, 422)
    assert first.json() == second.json()


def test_other_bytes_cannot_replace_a_rejected_upload(
    instance: RunningInstance, integration_id: int
) -> None:
    query = {
        "dbt_core_integration_id": str(integration_id),
        "dbt_core_integration_environment_type": "PROD",
        "file_type": "manifest",
    }
    announced = call(instance, "GET", "dbt/v1/signed_url", params=query).json()
    file_id = announced["dbt_core_integration_file_id"]
    for content, status in ((CURRENT[:-5], 200), (NEWER, 409)):
        assert requests.put(announced["url"], data=content, timeout=30).status_code == status
        assert verify(instance, file_id).status_code == 422


def test_two_verifications_at_once_give_the_same_rejection(
    instance: RunningInstance, integration_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = upload(instance, integration_id, WRONG)
    expected = verify(instance, file_id).json()

    def reject_first() -> None:
        with instance.storage.database.write() as connection:
            reasons = [UploadCheck.OLDER]
            upload_records.mark_rejected(connection, file_id, reasons, "the other call was faster")

    interfere(monkeypatch, reject_first)
    answer = verify(instance, file_id)
    assert answer.status_code == 409
    assert answer.json() == expected


def test_a_token_that_is_revoked_during_the_verification_publishes_nothing(
    instance: RunningInstance, integration_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = instance.new_token("upload")
    file_id = upload(instance, integration_id, NEWER, token=token)
    principal = principal_of(instance, token)
    interfere(monkeypatch, lambda: revoke(instance, principal))
    answer = verify(instance, file_id, token)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert pull(instance, integration_id) == CURRENT


def test_an_integration_that_is_deleted_during_the_verification_is_not_changed(
    instance: RunningInstance, integration_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = upload(instance, integration_id, NEWER)
    interfere(monkeypatch, lambda: delete(instance, integration_id))
    answer = verify(instance, file_id)
    assert answer.status_code == 404
    assert "was deleted" in answer.json()["detail"]
    call(instance, "POST", f"dbt/v1/project_integrations/{integration_id}/undelete")
    assert pull(instance, integration_id) == CURRENT


@pytest.mark.parametrize("change", ["restore", "accept"])
def test_a_token_that_was_revoked_after_the_request_began_changes_nothing(
    instance: RunningInstance, integration_id: int, change: str
) -> None:
    (first,) = show(instance, integration_id)["history"]
    onboard(instance, integration_id, NEWER)
    rejected = upload(instance, integration_id, WRONG)
    verify(instance, rejected)
    principal = principal_of(instance, instance.new_token("admin"))
    revoke(instance, principal)
    with pytest.raises(AuthenticationFailed, match="revoked"):
        change_current(instance, principal, change, first, rejected)
    assert pull(instance, integration_id) == NEWER


@pytest.mark.parametrize("change", ["restore", "accept"])
def test_an_integration_that_was_deleted_after_the_request_began_is_not_changed(
    instance: RunningInstance, integration_id: int, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = show(instance, integration_id)["history"]
    onboard(instance, integration_id, NEWER)
    rejected = upload(instance, integration_id, WRONG)
    verify(instance, rejected)
    principal = principal_of(instance, instance.token)
    find_integration = integrations.find_integration

    def find_and_delete(*arguments: Any) -> object:
        integration = find_integration(*arguments)
        delete(instance, integration_id)
        return integration

    for module in (artifacts, uploads):
        monkeypatch.setattr(module, "find_integration", find_and_delete)
    with pytest.raises(NotFound, match="was deleted"):
        change_current(instance, principal, change, first, rejected)


def change_current(
    instance: RunningInstance, principal: Principal, change: str, first: Any, rejected: int
) -> None:
    """Restore the first upload or accept the rejected one, as a caller that is authenticated."""
    if change == "accept":
        uploads.accept_upload(instance.storage, principal, rejected)
        return
    artifacts.restore_artifact(
        instance.storage,
        principal,
        integration_id=1,
        environment="PROD",
        upload_id=first["dbt_core_integration_file_id"],
    )
