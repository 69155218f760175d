"""Deferral with unusual files, directories, signals and dbt output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datapilot_defer import dbt_installation, dbt_project
from datapilot_defer.defer import dbt_queries
from datapilot_defer.defer.settings_file import SettingsFile
from datapilot_defer.errors import UsageError
from tests.support.dbt_project import Shop

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no shebang lines and POSIX signals")

RUN = """
import os, signal, sys
from datapilot_defer.defer.dbt_process import run_dbt
signal.signal(getattr(signal, sys.argv[1]), signal.SIG_IGN)
sys.exit(run_dbt([sys.executable, "-c", sys.argv[2]], os.environ, grace_s=60))
"""


@posix
@pytest.mark.parametrize("ignored", ["SIGHUP", "SIGINT"])
def test_ignored_signal_stays_ignored(ignored: str) -> None:
    dbt_code = f"import os, signal; os.kill(os.getppid(), signal.{ignored}); raise SystemExit(7)"
    done = subprocess.run(
        [sys.executable, "-c", RUN, ignored, dbt_code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    assert done.returncode == 7, done.stderr


@posix
def test_sigterm_interrupts_dbt_if_sigint_is_ignored() -> None:
    dbt_code = (
        "import os, signal, time\n"
        "try: os.kill(os.getppid(), signal.SIGTERM); time.sleep(600)\n"
        "except KeyboardInterrupt: print('canceled')"
    )
    done = subprocess.run(
        [sys.executable, "-c", RUN, "SIGINT", dbt_code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    assert (done.returncode, done.stdout.strip()) == (128 + signal.SIGTERM, b"canceled")


@posix
@pytest.mark.parametrize("name", ["csv.py", "importlib.py", "email.py"])
def test_version_check_does_not_run_files_of_current_directory(
    name: str, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    directory = tmp_path / "here"
    directory.mkdir()
    (directory / name).write_text(f"open({str(marker)!r}, 'w').close()", encoding="utf-8")
    monkeypatch.chdir(directory)
    assert dbt_installation.find_dbt(str(shop.dbt), os.environ).version_series == "1.11"
    assert not marker.exists()


@pytest.mark.parametrize(
    "content", ["name: shop\nwhen: 2024-02-30\n", "name: " + "[" * 3000, "name: \x00"]
)
def test_project_file_with_yaml_error_is_reported(content: str, tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=r"dbt_project\.yml cannot be read: "):
        dbt_project.read_project(tmp_path, {})


def test_read_only_settings_directory_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    file = SettingsFile(tmp_path / "settings.json", "", tmp_path)
    with pytest.raises(UsageError, match="cannot write the settings to"):
        file.update({"deferToProduction": True})


def query_of_script(directory: Path, script: str) -> dbt_queries.DbtQuery:
    """Return a query that runs this shell script instead of dbt."""
    program = directory / "dbt"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    project = dbt_project.DbtProject(directory, "shop", directory / "target")
    return dbt_queries.DbtQuery(
        dbt_installation.DbtInstallation(program, "1.11.16"), project, [], os.environ
    )


@posix
def test_cache_directory_that_cannot_be_created_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        UsageError,
        match=r"cannot create the directory .*file.*: Not a directory. Set XDG_CACHE_HOME",
    ):
        query_of_script(tmp_path, "exit 0").run([], tmp_path)


@posix
def test_query_ignores_lines_that_resemble_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = query_of_script(
        tmp_path,
        """
        case "$*" in
            *" ls "*) echo "{'a': 'warning'}"; echo '{"unique_id": "model.shop.a"}';;
            *) echo "in: print('datapilot-found:' ~ x)"; echo 'datapilot-found:["model.shop.b"]'
               echo '{"nodes": {}}' > "$TARGET";;
        esac
        """,
    )
    monkeypatch.setenv("TARGET", str(query.work_directory / "compile" / "manifest.json"))
    result = query.run(["-s", "a"], tmp_path)
    assert result.selected == frozenset({"model.shop.a"})
    assert result.exists == frozenset({"model.shop.b"})


@posix
def test_failed_query_ends_other_dbt_processes(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    failing = query_of_script(
        tmp_path,
        f'case "$*" in *" ls "*) echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600;; esac\n'
        f"while [ ! -e {pid} ]; do sleep 0.05; done; exit 3",
    )
    with pytest.raises(UsageError, match="`dbt compile` exited with 3"):
        failing.run(["-s", "a"], tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text(encoding="utf-8")), 0)


@posix
def test_sigterm_ends_explain_immediately(shop: Shop, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    query_of_script(
        tmp_path,
        'case "$*" in --version) echo installed: 1.11.16; exit;; esac\n'
        f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600",
    )
    origin = [
        "--dbt",
        tmp_path / "dbt",
        "--manifest-path",
        shop.prod_artifacts,
        "--project-dir",
        shop.project,
    ]
    words = [sys.executable, "-m", "datapilot_defer", "dbt", "defer", "explain", *map(str, origin)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=shop.environment
    ) as command:
        while not pid.exists() and command.poll() is None:
            time.sleep(0.02)
        command.send_signal(signal.SIGTERM)
        output = command.communicate(timeout=30)[0].decode()
    assert command.returncode == 128 + signal.SIGTERM, output
    assert "Traceback" not in output
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text(encoding="utf-8")), 0)
