"""Migrations of the database: Alembic's environment, and one module for each step."""
