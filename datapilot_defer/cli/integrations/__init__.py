"""Commands of `datapilot dbt integrations`."""
