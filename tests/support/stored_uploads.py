"""Uploads created as database records, for tests of retention with many uploads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, func, select

from datapilot_defer.artifact import Kind
from datapilot_defer.storage import Storage, integrations, open_storage, publications, uploads
from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.publications import PublicationReason
from datapilot_defer.storage.tables import files, tokens
from datapilot_defer.storage.tables import publications as publication_table
from datapilot_defer.storage.uploads import Upload
from tests.support.instances import create_instance


@dataclass(frozen=True)
class UploadRecords:
    """The storage of instance 1 with the environment PROD of integration 1."""

    storage: Storage
    environment_id: int
    token_id: int

    def add(
        self,
        content: str,
        *,
        kind: Kind = Kind.MANIFEST,
        since: datetime | None = None,
        connection: Connection | None = None,
    ) -> Upload:
        """Add a verified upload and make it current. content: a hash of any length."""
        if connection is None:
            with self.storage.database.write() as connection:
                return self.add(content, kind=kind, since=since, connection=connection)
        moment = since or utc_now()
        upload_id = uploads.create_upload(
            connection, environment_id=self.environment_id, token_id=self.token_id, kind=kind
        )
        uploads.mark_received(connection, upload_id, sha256=content.zfill(64), size_bytes=1)
        uploads.mark_verified(connection, upload_id, moment)
        upload = uploads.find_upload(connection, upload_id)
        assert upload is not None
        self.publish(connection, upload, moment)
        return upload

    def add_many(self, count: int) -> None:
        """Add different uploads in one transaction."""
        with self.storage.database.write() as connection:
            for number in range(count):
                self.add(str(number), connection=connection)

    def publish(
        self,
        connection: Connection,
        upload: Upload,
        since: datetime,
        reason: PublicationReason = PublicationReason.UPLOAD,
    ) -> None:
        """Make an upload current."""
        publications.make_current(
            connection, upload, since=since, reason=reason, token_id=self.token_id
        )

    def count(self) -> int:
        """Return the number of uploads."""
        with self.storage.database.read() as connection:
            return connection.scalar(select(func.count()).select_from(files)) or 0

    def published_ids(self) -> list[int | None]:
        """Return the upload id of each publication, the oldest first."""
        with self.storage.database.read() as connection:
            query = select(publication_table.c.file_id).order_by(publication_table.c.id)
            return list(connection.scalars(query))


@contextmanager
def stored_uploads(data: Path) -> Iterator[UploadRecords]:
    """Open a new storage without uploads."""
    with open_storage(data) as storage:
        create_instance(storage, "acme")
        with storage.database.write() as connection:
            integration = integrations.create_integration(
                connection, 1, name="shop", integration_type="dbt_core"
            )
            integrations.add_environment(connection, integration.id, "PROD")
            stored = integrations.find_integration(connection, 1, integration.id)
            assert stored is not None
            token_id = connection.scalar(select(tokens.c.id))
            assert token_id is not None
        yield UploadRecords(storage, stored.environments[0].id, token_id)
