"""The commands of `datapilot dbt defer`."""
