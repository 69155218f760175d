"""dbt's defer for one project: its settings, the state directory, dbt's command line, and the explanation."""
