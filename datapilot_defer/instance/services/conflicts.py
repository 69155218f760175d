"""Conflicts between a request and the current state of the instance."""

from datapilot_defer.errors import ArtifactRefused


class Conflict(ArtifactRefused):
    """The request conflicts with the current state of the instance."""


class UploadReplaced(Conflict):
    """The bytes of an upload were replaced during its verification."""


class UnsafeUpload(Conflict):
    """An upload check rejected the manifest, because it could break defer for users."""


class QuotaExceeded(Conflict):
    """The instance already stores as many bytes as its settings permit."""
