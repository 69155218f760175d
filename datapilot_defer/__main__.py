"""`python -m datapilot_defer`, and both console scripts."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Run the command line."""
    from datapilot_defer.cli.command import configure_streams
    from datapilot_defer.cli.main import root

    configure_streams()
    # The name that was typed: where altimate-datapilot-cli owns `datapilot`, ours is `datapilot-defer`.
    typed = Path(sys.argv[0]).stem
    root(prog_name=typed if typed == "datapilot-defer" else "datapilot")


if __name__ == "__main__":
    main()
