"""dbt's defer for one project: settings, state directory, dbt's command line, and explanation."""
