"""Alembic runs this module to migrate the database of `config.attributes["connection"]`."""

from alembic import context

# The caller's transaction is the only one: all steps take effect, or none.
context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
