"""Gets production's dbt manifest to every laptop and CI job, so that dbt can defer to it."""
