"""The tables of release 0.1.0. A database of that release is stamped with this step."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Do nothing: a new database starts with the tables of the newest step."""
