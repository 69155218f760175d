"""Deliver production's dbt manifest to every laptop and CI job, so that dbt can defer to it."""


def __getattr__(name: str) -> str:
    """Return `__version__`, looked up lazily because the lookup is slow."""
    if name == "__version__":
        from datapilot_defer.version import program_version

        return program_version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
