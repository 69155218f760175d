"""The Alembic environment. It migrates the database of `config.attributes["connection"]`."""

from alembic import context

# All migrations run in the caller's transaction, so either all of them take effect or none.
context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
