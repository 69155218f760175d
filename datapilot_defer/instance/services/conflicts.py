"""Conflicts of a request with the current state of the instance."""

from datapilot_defer.errors import ArtifactRefused


class Conflict(ArtifactRefused):
    """The request conflicts with the current state of the instance."""


class UploadReplaced(Conflict):
    """The bytes of an upload were replaced during its verification."""


class UnsafeUpload(Conflict):
    """The manifest would break defer for its users."""


class QuotaExceeded(Conflict):
    """The instance already stores as many bytes as its settings permit."""
