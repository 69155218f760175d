"""Migrations of the database: the Alembic environment, and one module for each migration."""
