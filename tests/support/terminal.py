"""Commands at a pseudo-terminal, which Windows does not have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from threading import Timer

# A command that waits for another answer would wait forever.
_TIMEOUT_S = 120.0
_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def at_a_terminal(
    words: Sequence[str], answers: Mapping[str, str], environ: Mapping[str, str]
) -> str:
    """Run `datapilot WORDS` at a pseudo-terminal, answer its prompts and return its output."""
    command = [sys.executable, "-c", _TERMINAL, sys.executable, "-m", "datapilot_defer", *words]
    output = b""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        timer = Timer(_TIMEOUT_S, process.kill)
        timer.start()
        try:
            for question, answer in answers.items():
                before = len(output)
                while question.encode() not in output[before:]:
                    piece = os.read(process.stdout.fileno(), 4096)
                    assert piece, output
                    output += piece
                process.stdin.write(f"{answer}\n".encode())
                process.stdin.flush()
            output += process.stdout.read()
        finally:
            timer.cancel()
    return output.decode()
