"""What deferring makes of odd files, folders, signals and answers."""

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

posix = pytest.mark.skipif(
    os.name == "nt", reason="scripts with an interpreter line and signals are of POSIX"
)

RUN = """
import os, signal, sys
from datapilot_defer.defer.dbt_process import run_dbt
signal.signal(getattr(signal, sys.argv[1]), signal.SIG_IGN)
sys.exit(run_dbt([sys.executable, "-c", sys.argv[2]], os.environ, grace_s=60))
"""


@posix
@pytest.mark.parametrize("ignored", ["SIGHUP", "SIGINT"])
def test_a_signal_that_nohup_ignores_stays_ignored(ignored: str) -> None:
    told = f"import os, signal; os.kill(os.getppid(), signal.{ignored}); raise SystemExit(7)"
    done = subprocess.run(
        [sys.executable, "-c", RUN, ignored, told], stdin=subprocess.DEVNULL, capture_output=True
    )
    assert done.returncode == 7, done.stderr


@posix
def test_dbt_can_be_told_to_end_also_in_a_job_that_ignores_ctrl_c() -> None:
    told = (
        "import os, signal, time\n"
        "try: os.kill(os.getppid(), signal.SIGTERM); time.sleep(600)\n"
        "except KeyboardInterrupt: print('cancelled')"
    )
    done = subprocess.run(
        [sys.executable, "-c", RUN, "SIGINT", told], stdin=subprocess.DEVNULL, capture_output=True
    )
    assert (done.returncode, done.stdout.strip()) == (128 + signal.SIGTERM, b"cancelled")


@posix
@pytest.mark.parametrize("name", ["csv.py", "importlib.py", "email.py"])
def test_no_file_of_the_working_folder_runs_when_dbts_version_is_asked(
    name: str, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / name).write_text(f"open({str(ran)!r}, 'w').close()", encoding="utf-8")
    monkeypatch.chdir(folder)
    assert dbt_installation.find_dbt(str(shop.dbt), os.environ).version_series == "1.11"
    assert not ran.exists()


@pytest.mark.parametrize(
    "content", ["name: shop\nwhen: 2024-02-30\n", "name: " + "[" * 3000, "name: \x00"]
)
def test_a_project_file_that_yaml_stumbles_over_is_said(content: str, tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=r"dbt_project\.yml cannot be read: "):
        dbt_project.read_project(tmp_path, {})


def test_settings_that_can_not_be_written_are_said_when_nothing_can_be_removed_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    file = SettingsFile(tmp_path / "settings.json", "", tmp_path)
    with pytest.raises(UsageError, match="cannot write the settings to"):
        file.update({"deferToProduction": True})


def asker(folder: Path, script: str) -> dbt_queries.DbtQuery:
    """One that asks this shell script instead of dbt."""
    program = folder / "dbt"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    found = dbt_project.DbtProject(folder, "shop", folder / "target")
    return dbt_queries.DbtQuery(
        dbt_installation.DbtInstallation(program, "1.11.16"), found, [], os.environ
    )


@posix
def test_a_cache_folder_that_can_not_be_made_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        UsageError,
        match=r"cannot create the directory .*file.*: Not a directory. Set XDG_CACHE_HOME",
    ):
        asker(tmp_path, "exit 0").run([], tmp_path)


@posix
def test_what_only_looks_like_an_answer_of_dbt_is_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering = asker(
        tmp_path,
        """
        case "$*" in
            *" ls "*) echo "{'a': 'warning'}"; echo '{"unique_id": "model.shop.a"}';;
            *) echo "in: print('datapilot-found:' ~ x)"; echo 'datapilot-found:["model.shop.b"]'
               echo '{"nodes": {}}' > "$TARGET";;
        esac
        """,
    )
    monkeypatch.setenv("TARGET", str(answering.work_directory / "compile" / "manifest.json"))
    said = answering.run(["-s", "a"], tmp_path)
    assert said.selected == frozenset({"model.shop.a"})
    assert said.exists == frozenset({"model.shop.b"})


@posix
def test_no_dbt_is_left_behind_when_another_question_fails(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    failing = asker(
        tmp_path,
        f'case "$*" in *" ls "*) echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600;; esac\n'
        f"while [ ! -e {pid} ]; do sleep 0.05; done; exit 3",
    )
    with pytest.raises(UsageError, match="`dbt compile` exited with 3"):
        failing.run(["-s", "a"], tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text(encoding="utf-8")), 0)


@posix
def test_explain_ends_at_once_when_it_is_told_to(shop: Shop, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    asker(
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
        said = command.communicate(timeout=30)[0].decode()
    assert command.returncode == 128 + signal.SIGTERM, said
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text(encoding="utf-8")), 0)
