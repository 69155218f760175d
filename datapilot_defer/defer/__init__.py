"""Deferral for one dbt project: settings, state directory, command line and explanation."""
