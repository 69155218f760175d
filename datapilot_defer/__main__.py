"""`python -m datapilot_defer`, and both console scripts."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from datapilot_defer.cli.command import prepare_streams
    from datapilot_defer.cli.main import root

    prepare_streams()
    root(prog_name="datapilot")


if __name__ == "__main__":
    main()
