"""Entry point of `python -m datapilot_defer` and of both console scripts."""

from __future__ import annotations

import signal
import sys
from pathlib import Path


def main() -> None:
    """Run the command line."""
    # Ctrl-C during the imports ends the program without a traceback, unless the parent process
    # disabled it.
    handles_ctrl_c = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if handles_ctrl_c:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from datapilot_defer.cli.command import configure_streams
    from datapilot_defer.cli.main import root

    if handles_ctrl_c:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    configure_streams()
    # Usage messages show the invoked name: where altimate-datapilot-cli owns `datapilot`, ours is
    # `datapilot-defer`.
    program = Path(sys.argv[0]).stem
    if program != "datapilot-defer":
        program = "datapilot"
    root(prog_name=program)


if __name__ == "__main__":
    main()
