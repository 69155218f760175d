"""What pages and the API show of integrations and environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datapilot_defer.artifact import Kind
from datapilot_defer.instance.services.integrations import find_environment, find_integration
from datapilot_defer.instance.services.principal import Principal
from datapilot_defer.storage import Storage
from datapilot_defer.storage import publications as publication_records
from datapilot_defer.storage import uploads as upload_records
from datapilot_defer.storage.integrations import Environment, Integration
from datapilot_defer.storage.publications import Publication
from datapilot_defer.storage.uploads import Upload

# Uploads in one answer or on one page.
HISTORY_LIMIT = 100


@dataclass(frozen=True)
class EnvironmentOverview:
    """An environment with its history.

    history: uploads with the names of their tokens. verifications: the newest verified and
    rejected uploads. publications: what became current. All are sorted from new to old.
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


def show_environment(
    storage: Storage,
    principal: Principal,
    *,
    integration_id: int,
    environment: str,
    include_rejected: bool = False,
) -> EnvironmentOverview:
    """Return an environment with its newest HISTORY_LIMIT uploads.

    include_rejected: also those that did not become current. Raises NotFound.
    """
    integration = find_integration(storage, principal, integration_id)
    selected = find_environment(integration, environment)
    with storage.database.read() as connection:
        history = upload_records.list_history(
            connection, selected.id, limit=HISTORY_LIMIT, include_rejected=include_rejected
        )
        verifications = upload_records.list_history(
            connection, selected.id, limit=HISTORY_LIMIT, include_rejected=True
        )
        current = publication_records.list_current(connection, selected.id)
        publications = publication_records.list_publications(
            connection, selected.id, limit=HISTORY_LIMIT
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
