"""The tables of release 0.1.0. A database of that release is stamped with this migration."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Do nothing. A new database is created with the newest tables."""
