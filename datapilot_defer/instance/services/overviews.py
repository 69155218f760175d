"""Views of integrations, environments and uploads for the web pages and the API."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datapilot_defer.artifact import Kind
from datapilot_defer.errors import NotFound
from datapilot_defer.instance.services.integrations import find_environment, find_integration
from datapilot_defer.instance.services.principal import Principal, require_scope
from datapilot_defer.storage import Storage
from datapilot_defer.storage import integrations as integration_records
from datapilot_defer.storage import overviews as overview_records
from datapilot_defer.storage import publications as publication_records
from datapilot_defer.storage import tokens as token_records
from datapilot_defer.storage import uploads as upload_records
from datapilot_defer.storage.integrations import Environment, Integration
from datapilot_defer.storage.publications import Publication
from datapilot_defer.storage.tokens import Token
from datapilot_defer.storage.uploads import Upload

# Maximum number of uploads in one response or on one page.
HISTORY_LIMIT = 100
_MAIN_ENVIRONMENT = "PROD"


@dataclass(frozen=True)
class IntegrationRow:
    """An integration, its main environment and the current manifest of that environment."""

    integration: Integration
    environment: Environment | None
    manifest: Upload | None


@dataclass(frozen=True)
class IntegrationPage:
    """One page of the integrations that match a search. total: the number of all matches."""

    rows: Sequence[IntegrationRow]
    total: int


@dataclass(frozen=True)
class EnvironmentOverview:
    """An environment with its history.

    history: uploads with the names of their tokens. current: the current upload of each kind.
    verifications: the newest verified and rejected uploads. publications: the records of uploads
    that became current. Each list is sorted from new to old.
    """

    integration: Integration
    environment: Environment
    history: Sequence[tuple[Upload, str]]
    current: Mapping[Kind, Upload]
    verifications: Sequence[Upload]
    publications: Sequence[Publication]

    def is_current(self, upload: Upload) -> bool:
        """Return whether an upload is the current one of its kind."""
        current = self.current.get(upload.kind)
        return current is not None and current.id == upload.id


@dataclass(frozen=True)
class UploadOverview:
    """An upload with its verification results.

    current: the current upload of the same kind. report: lines as printed by `datapilot dbt
    validate`. changed_models: names of models by "added", "removed" and "changed"; long lists are
    truncated.
    """

    integration: Integration
    environment: Environment
    upload: Upload
    token_name: str
    current: Upload | None
    report: Sequence[str]
    changed_models: Mapping[str, Sequence[str]]

    @property
    def is_current(self) -> bool:
        """Return whether the upload is the current one of its kind."""
        return self.current is not None and self.current.id == self.upload.id


def list_integration_rows(
    storage: Storage, principal: Principal, *, name_contains: str = "", offset: int, limit: int
) -> IntegrationPage:
    """Return one page of the integrations that the token permits, sorted by name.

    The page starts at `offset` and has at most `limit` integrations. name_contains: only
    integrations whose name contains this text, ignoring case. The number of SQL statements does not
    depend on the number of integrations.
    """
    instance_id = principal.instance.id
    only_id = principal.token.integration_id
    with storage.database.read() as connection:
        total = integration_records.count_integrations(
            connection, instance_id, only_id=only_id, name_contains=name_contains
        )
        listed = integration_records.list_integrations(
            connection,
            instance_id,
            only_id=only_id,
            name_contains=name_contains,
            offset=offset,
            limit=limit,
        )
        shown = [(integration, select_main_environment(integration)) for integration in listed]
        environment_ids = [environment.id for _, environment in shown if environment is not None]
        manifests = overview_records.list_current_manifests(connection, environment_ids)
    rows = [_integration_row(integration, main, manifests) for integration, main in shown]
    return IntegrationPage(rows, total)


def _integration_row(
    integration: Integration, environment: Environment | None, manifests: Mapping[int, Upload]
) -> IntegrationRow:
    manifest = None
    if environment is not None:
        manifest = manifests.get(environment.id)
    return IntegrationRow(integration, environment, manifest)


def select_main_environment(integration: Integration) -> Environment | None:
    """Return the environment PROD, or the oldest environment if PROD does not exist.

    Return None for an integration without environments.
    """
    environment = integration.environment(_MAIN_ENVIRONMENT)
    if environment is None and integration.environments:
        environment = integration.environments[0]
    return environment


def show_environment(
    storage: Storage,
    principal: Principal,
    *,
    integration_id: int,
    environment: str,
    kind: Kind | None = None,
    include_rejected: bool = False,
) -> EnvironmentOverview:
    """Return an environment with its newest HISTORY_LIMIT uploads.

    kind: restrict the history and the publications to this kind; the history then always includes
    rejected uploads. include_rejected: include rejected uploads in the history of all kinds. Raises
    NotFound.
    """
    integration = find_integration(storage, principal, integration_id)
    selected = find_environment(integration, environment)
    with storage.database.read() as connection:
        verifications = upload_records.list_history(
            connection, selected.id, limit=HISTORY_LIMIT, include_rejected=True
        )
        history = verifications
        if kind is not None:
            history = overview_records.list_history_of_kind(
                connection, selected.id, kind, limit=HISTORY_LIMIT
            )
        elif not include_rejected:
            history = upload_records.list_history(connection, selected.id, limit=HISTORY_LIMIT)
        current = publication_records.list_current(connection, selected.id)
        publications = publication_records.list_publications(
            connection, selected.id, kind=kind, limit=HISTORY_LIMIT
        )
    current_by_kind = {upload.kind: upload for upload in current}
    return EnvironmentOverview(
        integration=integration,
        environment=selected,
        history=history,
        current=current_by_kind,
        verifications=[upload for upload, _ in verifications],
        publications=publications,
    )


def show_upload(
    storage: Storage, principal: Principal, *, integration_id: int, environment: str, upload_id: int
) -> UploadOverview:
    """Return a verified or rejected upload of an environment. Raises NotFound."""
    integration = find_integration(storage, principal, integration_id)
    selected = find_environment(integration, environment)
    with storage.database.read() as connection:
        upload = upload_records.find_upload(connection, upload_id)
        if upload is None or upload.environment_id != selected.id or not _is_shown(upload):
            raise NotFound(
                f"{selected.name} of integration {integration.id} has no upload {upload_id}"
            )
        details = upload_records.find_upload_details(connection, upload.id)
        token = token_records.get_token(connection, upload.token_id)
        current = publication_records.find_current(connection, selected.id, upload.kind)
    token_name = ""
    if token is not None:
        token_name = token.name
    changed_models = _read_changed_models(details.changes)
    return UploadOverview(
        integration, selected, upload, token_name, current, details.report, changed_models
    )


def list_token_rows(storage: Storage, principal: Principal) -> Sequence[tuple[Token, str | None]]:
    """Return the tokens of the caller's instance, each with the name of its integration.

    The name is None for a token that permits all integrations. Raises AccessDenied unless the
    caller is an admin.
    """
    require_scope(principal, "admin")
    with storage.database.read() as connection:
        listed = token_records.list_tokens(connection, principal.instance.id)
        integration_ids = {token.integration_id for token in listed} - {None}
        names = overview_records.find_integration_names(
            connection, [each for each in integration_ids if each is not None]
        )
    return [(token, names.get(token.integration_id or 0)) for token in listed]


def _is_shown(upload: Upload) -> bool:
    return upload.uploaded_at is not None or upload.refusal is not None


def _read_changed_models(changes: str | None) -> Mapping[str, Sequence[str]]:
    """Return the nonempty lists of model names in the stored JSON of a `ModelChanges` object."""
    if changes is None:
        return {}
    names = json.loads(changes).get("names") or {}
    return {word: listed for word, listed in names.items() if listed}
