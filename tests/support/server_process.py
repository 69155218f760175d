"""An instance in its own process, from this checkout or another one, and its resources.

    with serving(Checkout(), data) as server:
        Client(server).onboard(1, manifest)
        print(server.peak_mb())

The module uses only HTTP, /proc (Linux only) and the server's log.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

REPOSITORY = Path(__file__).resolve().parents[2]
INSTANCE_NAME = "acme"
_START_SECONDS = 60
_STOP_SECONDS = 90
# Runs a command with other limits of open files. Arguments: soft limit, hard limit, command.
_LIMITED = """
import os, resource, sys
limits = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
os.execvp(sys.argv[3], sys.argv[3:])
"""


@dataclass(frozen=True)
class Checkout:
    """A checkout of this project. A checkout other than this one needs its own `.venv`.

    temporary: the directory for temporary files of its processes.
    """

    directory: Path = REPOSITORY
    temporary: Path | None = None

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that runs this checkout's program."""
        python = self.directory / ".venv" / "bin" / "python"
        if self.directory == REPOSITORY or not python.exists():
            python = Path(sys.executable)
        return [str(python), "-m", "datapilot_defer", *arguments]

    def environ(self) -> dict[str, str]:
        """Return the environment variables that make Python import this checkout."""
        environ = {**os.environ, "PYTHONPATH": str(self.directory), "NO_COLOR": "1"}
        if self.temporary is not None:
            environ["TMPDIR"] = str(self.temporary)
        return environ

    def create_instance(self, data: Path) -> str:
        """Create the instance of a data directory and return its admin token."""
        return self._print_token("init", "--data", str(data), "--instance-name", INSTANCE_NAME)

    def create_token(self, data: Path, name: str, *scopes: str) -> str:
        """Create a token of that instance, by default with the scope "read"."""
        options = ["--data", str(data), "--name", name]
        for scope in scopes or ("read",):
            options += ["--scope", scope]
        return self._print_token("token", "create", *options)

    def _print_token(self, *arguments: str) -> str:
        result = subprocess.run(
            self.command("instance", *arguments, "--json"),
            cwd=self.directory,
            env=self.environ(),
            capture_output=True,
            check=True,
        )
        return str(json.loads(result.stdout)["token"])


@dataclass(frozen=True)
class ServerProcess:
    """A running instance. token: an admin token. log: the file with its stderr."""

    process: subprocess.Popen[bytes] = field(repr=False)
    url: str
    token: str = field(repr=False)
    log: Path

    @property
    def pid(self) -> int:
        """Return the id of the server process."""
        return self.process.pid

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Return the address at which the server listens."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of a request as admin."""
        return {"Authorization": f"Bearer {self.token}", "x-tenant": INSTANCE_NAME}

    def peak_mb(self) -> float:
        """Return the peak resident memory (VmHWM) of the server process, without children."""
        return status_mb(self.pid, "VmHWM")

    def cpu_s(self) -> float:
        """Return the CPU seconds of the server process, without running children."""
        return cpu_s(self.pid)

    def open_files(self) -> int:
        """Return the number of open file descriptors of the server process."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())


@contextmanager
def serving(
    checkout: Checkout,
    data: Path,
    *options: str,
    token: str = "",
    open_files: tuple[int, int] | None = None,
) -> Iterator[ServerProcess]:
    """Serve a data directory until the block ends.

    options: more options of `serve`. token: the admin token of an existing instance. open_files:
    the soft and the hard limit of the process.
    """
    admin_token = token or checkout.create_instance(data)
    log = data.with_name(f"{data.name}.log")
    with log.open("ab") as log_file:
        process = start_server(checkout, data, *options, open_files=open_files, stderr=log_file)
    try:
        yield ServerProcess(process, _require_url(process, log), admin_token, log)
    finally:
        stop(process)


def start_server(
    checkout: Checkout,
    data: Path,
    *options: str,
    port: int = 0,
    open_files: tuple[int, int] | None = None,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start `serve`, which prints its result as one line of JSON to a pipe."""
    arguments = ["--data", str(data), "--port", str(port), "--json", "--requests-per-minute", "0"]
    command = checkout.command("instance", "serve", *arguments, *options)
    if open_files is not None:
        limits = map(str, open_files)
        command = [sys.executable, "-S", "-c", _LIMITED, *limits, *command]
    return subprocess.Popen(
        command,
        cwd=checkout.directory,
        env=checkout.environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
    )


def stop(process: subprocess.Popen[bytes]) -> int:
    """End a server with SIGTERM, or SIGKILL after a timeout. Return its exit code."""
    with process:
        process.terminate()
        try:
            return process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def wait_until_ready(process: subprocess.Popen[bytes]) -> str:
    """Return the URL of a server when it accepts requests, or "" if it ended."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        return ""
    return str(json.loads(line)["url"])


def _require_url(process: subprocess.Popen[bytes], log: Path) -> str:
    url = wait_until_ready(process)
    if not url:
        raise RuntimeError(f"the server did not start: {log.read_text(encoding='utf-8')[-2000:]}")
    return url


def status_mb(pid: int, name: str) -> float:
    """Return a memory value of /proc/PID/status in MB (1e6 bytes), or 0 if the process ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    match = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    if match is None:
        return 0.0
    return int(match[1]) * 1024 / 1e6


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process so far, or 0 if it ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """Return the ids of all descendants of a process."""
    try:
        tasks = sorted(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []
    process_ids = []
    for task in tasks:
        try:
            children = (task / "children").read_text(encoding="utf-8").split()
        except OSError:
            continue
        for child in map(int, children):
            process_ids += [child, *descendants(child)]
    return process_ids


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def surviving(pids: list[int]) -> list[int]:
    """Return the processes that still run after ten seconds. Return early if there are none."""

    def running() -> list[int]:
        return [pid for pid in pids if is_running(pid)]

    until = time.monotonic() + 10
    while running() and time.monotonic() < until:
        time.sleep(0.05)
    return running()


class ChildSampler:
    """Peak memory and CPU time of a process's children, sampled every 20 ms."""

    def __init__(self, pid: int) -> None:
        self.peak_mb = 0.0
        self.most_children = 0
        self._cpu_s: dict[int, float] = {}
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> ChildSampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def cpu_s(self) -> float:
        """Return the CPU seconds of all observed children."""
        return sum(self._cpu_s.values())

    def _run(self) -> None:
        while not self._over.wait(0.02):
            children = descendants(self._pid)
            self.most_children = max(self.most_children, len(children))
            for child in children:
                self.peak_mb = max(self.peak_mb, status_mb(child, "VmHWM"))
                self._cpu_s[child] = max(self._cpu_s.get(child, 0.0), cpu_s(child))
