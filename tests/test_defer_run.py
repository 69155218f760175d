"""`defer run` with real dbt: built models, arguments, signals and exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from datapilot_defer.dbt_installation import DbtInstallation, find_dbt
from datapilot_defer.dbt_project import DbtProject
from datapilot_defer.defer import command_line, dbt_process, last_run, shell_variables
from datapilot_defer.defer.command_line import compose_command, find_command
from datapilot_defer.errors import UsageError
from tests.support.commands import Outcome, access, datapilot
from tests.support.dbt_project import PROJECT, Shop
from tests.support.environments import require_program
from tests.support.extended_shop import extended_shop, fork
from tests.support.instances import RunningInstance
from tests.support.recorded_dbt import recorded_dbt

OURS = [sys.executable, "-m", "datapilot_defer", "dbt", "defer"]
SLOW = (
    "select count(*) as n from range(100000000) a, range(100000000) b where a.range + b.range = 7"
)


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Return the extended shop with an empty development schema."""
    return extended_shop(tmp_path_factory.mktemp("larger"))


@pytest.fixture
def dev(larger: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Return a copy of the extended shop for one test; its project is the current directory."""
    return _change_into(fork(larger, tmp_path / "copy"), monkeypatch)


def _change_into(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(shop.project)
    for name in ("DBT_PROFILES_DIR", "SHOP_DATABASE"):
        monkeypatch.setenv(name, shop.environment[name])
    return shop


def run(shop: Shop, *words: str) -> Outcome:
    """Run dbt under `defer run`, deferring to production; dbt's output is not captured."""
    origin = ("--dbt", shop.dbt, "--manifest-path", shop.prod_artifacts)
    return datapilot("dbt", "defer", "run", *origin, *words)


def compiled(shop: Shop, model: str) -> str:
    """Return the SQL that dbt compiled for a model."""
    [file] = (shop.project / "target" / "compiled").rglob(f"{model}.sql")
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize("version", ["dbt-1.8", "dbt-1.10", "dbt"])
def test_model_is_built_from_production_tables(
    version: str, larger: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = fork(larger, tmp_path / "copy") if version == "dbt" else extended_shop(tmp_path, version)
    _change_into(shop, monkeypatch)
    done = run(shop, "build", "-s", "summary")
    assert done.exit_code == 0, done.stderr
    schemas = dict(re.findall(r'"warehouse"\."(\w+)"\."(\w+)"', compiled(shop, "summary"))[::-1])
    assert set(schemas) == {"prod", "raw"}
    built = json.loads((shop.project / "target" / "run_results.json").read_bytes())["results"]
    assert [result["unique_id"] for result in built] == ["model.shop.summary"]


def test_run_pulls_manifest_before_dbt_starts(
    dev: Shop, instance: RunningInstance, tmp_path: Path
) -> None:
    created = datapilot(
        "dbt",
        "integrations",
        "create",
        "--name",
        "shop",
        "--environment",
        "PROD",
        env=access(instance),
    )
    manifest = dev.prod_artifacts / "manifest.json"
    assert created.exit_code == 0
    datapilot(
        "dbt", "onboard", "--integration-id", 1, "--manifest-path", manifest, env=access(instance)
    )
    words = ("--integration-id", 1, "compile", "-s", "summary")
    done = datapilot("dbt", "defer", "run", "--dbt", dev.dbt, *words, env=access(instance))
    assert done.exit_code == 0, done.stderr
    assert re.search(r"^Deferring to shop PROD \(built .* ago\)$", done.stderr, re.MULTILINE)
    assert '"prod"."revenue_by_country"' in compiled(dev, "summary")


def test_conflicting_variables_cause_one_warning(
    dev: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in shell_variables.defer_variables(
        dev.prod_artifacts, favor_state=False
    ).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DBT_DEFER_STATE", "")
    assert "is set" not in run(dev, "ls").stderr
    monkeypatch.setenv("DBT_DEFER_STATE", "/nowhere")
    assert re.findall(r"(\S+) is set and .* It is removed", run(dev, "ls").stderr) == [
        "DBT_DEFER_STATE"
    ]
    monkeypatch.setenv("DBT_FAVOR_STATE", "true")
    done = run(dev, "ls")
    assert re.findall(r"(\S+, \S+) are set and .* They are removed", done.stderr) == [
        "DBT_DEFER_STATE, DBT_FAVOR_STATE"
    ]


def test_output_and_exit_code_are_those_of_dbt(dev: Shop) -> None:
    words = ["ls", "-s", "shop", "--resource-type", "model"]
    origin = ["--dbt", str(dev.dbt), "--manifest-path", str(dev.prod_artifacts), "-q"]
    ours = subprocess.run(
        [*OURS, "run", *origin, *words], cwd=dev.project, capture_output=True, encoding="utf-8"
    )
    names = [line for line in dev.run(*words).stdout.splitlines() if line.startswith("shop.")]
    assert [line for line in ours.stdout.splitlines() if line.startswith("shop.")] == names
    assert ours.stderr == ""
    (dev.project / "models" / "fails.sql").write_text("select from where", encoding="utf-8")
    assert run(dev, "run", "-s", "fails").exit_code == 1


def test_modified_models_are_selected_by_production_state(dev: Shop) -> None:
    customers = dev.project / "models" / "marts" / "customers.sql"
    customers.write_text(customers.read_text(encoding="utf-8") + "\n-- changed", encoding="utf-8")
    done = run(dev, "run", "-s", "state:modified+")
    assert done.exit_code == 0, done.stderr
    built = json.loads((dev.project / "target" / "run_results.json").read_bytes())["results"]
    assert [result["unique_id"] for result in built] == [
        *("model.shop.customers", "model.shop.revenue_by_country", "model.shop.summary")
    ]
    assert '"dev"."customers"' in compiled(dev, "revenue_by_country")
    assert '"prod"."orders"' in compiled(dev, "revenue_by_country")


def test_retry_after_failure_defers_again(dev: Shop) -> None:
    model = dev.project / "models" / "marts" / "fails.sql"
    model.write_text("select * from {{ ref('orders') }} where no_such_column", encoding="utf-8")
    assert run(dev, "build", "-s", "fails").exit_code == 1
    model.write_text("select * from {{ ref('orders') }}", encoding="utf-8")
    done = run(dev, "retry")
    assert done.exit_code == 0, done.stderr
    assert '"prod"."orders"' in compiled(dev, "fails")


def test_retry_of_run_without_deferral_is_rejected(dev: Shop) -> None:
    (dev.project / "models" / "fails.sql").write_text(
        "select * from {{ ref('orders') }}", encoding="utf-8"
    )
    assert dev.run("run", "-s", "fails", check=False).returncode == 1
    done = run(dev, "retry")
    assert done.exit_code == 2
    assert "was not deferred, and `dbt retry` would repeat it without defer" in done.stderr


def test_retry_of_run_with_missing_state_is_rejected(dev: Shop) -> None:
    shutil.copytree(dev.prod_artifacts, dev.project / "state")
    (dev.project / "models" / "fails.sql").write_text(
        "select * from {{ ref('orders') }} where nope", encoding="utf-8"
    )
    assert dev.run("run", "-s", "fails", "--defer", "--state", "state", check=False).returncode == 1
    shutil.rmtree(dev.project / "state")
    assert dev.run("retry", check=False).returncode == 2
    done = run(dev, "retry")
    assert done.exit_code == 2
    assert "which no longer contains a manifest.json" in done.stderr


def test_retry_without_previous_run_is_left_to_dbt(dev: Shop) -> None:
    done = run(dev, "retry")
    assert done.exit_code == 2
    assert "Error" not in done.stderr


def test_state_option_of_user_applies_to_selection_only(dev: Shop, tmp_path: Path) -> None:
    shutil.copytree(dev.prod_artifacts, tmp_path / "selection")
    done = run(dev, "compile", "-s", "summary", "--state", str(tmp_path / "selection"))
    assert done.exit_code == 0, done.stderr
    assert '"prod"."revenue_by_country"' in compiled(dev, "summary")


def test_too_old_manifest_is_rejected_before_dbt_starts(dev: Shop) -> None:
    origin = ("--dbt", dev.dbt, "--manifest-path", dev.prod_artifacts, "--max-age", "0s")
    done = datapilot("dbt", "defer", "run", *origin, "build")
    assert done.exit_code == 1
    assert "the manifest is too old" in done.stderr
    assert not (dev.project / "target" / "run_results.json").exists()


def test_run_with_defer_off_is_rejected(dev: Shop) -> None:
    done = datapilot("dbt", "defer", "run", "--dbt", dev.dbt, "build", "-s", "summary")
    assert done.exit_code == 2
    assert "defer is off for shop" in done.stderr
    assert "`datapilot dbt defer enable`" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM handlers")
def test_sigterm_interrupts_dbt_and_sets_exit_code(dev: Shop) -> None:
    (dev.project / "models" / "slow.sql").write_text(SLOW, encoding="utf-8")
    origin = ["--dbt", str(dev.dbt), "--manifest-path", str(dev.prod_artifacts)]
    command = [*OURS, "run", *origin, "run", "-s", "slow"]
    with subprocess.Popen(
        command,
        cwd=dev.project,
        env=dev.environment,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    ) as dbt_process:
        assert dbt_process.stdout is not None
        for line in dbt_process.stdout:
            if "START" in line:
                break
        os.killpg(dbt_process.pid, signal.SIGTERM)  # Airflow signals the process group.
        output = dbt_process.stdout.read()
    assert dbt_process.returncode == 128 + signal.SIGTERM
    assert "CANCEL" in output


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM handlers")
def test_dbt_is_killed_after_grace_period(tmp_path: Path) -> None:
    stubborn = (
        "import os, pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: pathlib.Path(sys.argv[1]).write_text('sent'))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "while True: time.sleep(600)"
    )
    before = signal.getsignal(signal.SIGTERM)
    code = dbt_process.run_dbt(
        [sys.executable, "-c", stubborn, str(tmp_path / "signal")], os.environ, grace_s=0.5
    )
    assert code == 128 + signal.SIGTERM
    assert (tmp_path / "signal").read_text() == "sent"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no POSIX signals")
def test_exit_code_of_killed_dbt_has_signal_number() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert dbt_process.run_dbt([sys.executable, "-c", code], os.environ) == 128 + signal.SIGKILL


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM handlers")
def test_signal_during_start_of_dbt_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def signal_and_start(*args: object, **more: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return start(*args, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", signal_and_start)
    code = dbt_process.run_dbt([sys.executable, "-c", "import time; time.sleep(600)"], os.environ)
    assert code == 128 + signal.SIGTERM


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals of this kind")
@pytest.mark.parametrize(
    ("group", "hits"), [("pass", 1), ("os.setpgid(0, 0)", 0)], ids=["our group", "own group"]
)
def test_ctrl_c_at_terminal_is_not_forwarded(group: str, hits: int) -> None:
    import pty

    counting = (
        f"import os, signal, time; hits = []; {group}\n"
        "signal.signal(signal.SIGINT, lambda *_: hits.append(1))\n"
        "print('up', flush=True); started = time.monotonic()\n"
        "while not hits and time.monotonic() < started + 1: time.sleep(0.01)\n"
        "time.sleep(0.1); print('hits', len(hits), flush=True); raise SystemExit(7)"
    )
    code = (
        "import sys, os; from datapilot_defer.defer.dbt_process import run_dbt\n"
        "sys.exit(run_dbt([sys.executable, '-c', sys.argv[1]], os.environ))"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", code, counting])  # noqa: S606
    output = b""
    while b"up" not in output:
        output += os.read(terminal, 1024)
    os.write(terminal, b"\x03")
    while not re.search(rb"hits \d", output):
        output += os.read(terminal, 1024)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert f"hits {hits}".encode() in output
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGINT


@pytest.mark.skipif(os.name == "nt", reason="Windows has no shebang lines")
@pytest.mark.parametrize(
    ("version_output", "expected"),
    [
        (
            "Core:\\n  - installed: 1.4.9\\n",
            "is dbt 1.4.9. dbt 1.5 or newer",
        ),
        ("dbt Cloud CLI - 0.38.15 (abc)\\n", "dbt Cloud CLI, which defers on the platform"),
        ("hello\\n", "does not report its version"),
    ],
)
def test_unsupported_dbt_is_rejected(
    version_output: str, expected: str, dev: Shop, tmp_path: Path
) -> None:
    script = tmp_path / "dbt"
    script.write_text(f"#!/bin/sh\nprintf '{version_output}'\n", encoding="utf-8")
    script.chmod(0o755)
    done = run(replace(dev, dbt=script), "build")
    assert done.exit_code == 2
    assert expected in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no shebang lines")
def test_invalid_program_is_rejected(dev: Shop, tmp_path: Path) -> None:
    (tmp_path / "dbt").write_bytes(b"\x00\x01")
    (tmp_path / "dbt").chmod(0o755)
    done = run(replace(dev, dbt=tmp_path / "dbt"), "build")
    assert done.exit_code == 2
    assert "does not report its version" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no shebang lines")
def test_version_on_windows_comes_from_python_beside_dbt(tmp_path: Path) -> None:
    for name in ("dbt.exe", "python.exe"):
        (tmp_path / name).write_text("#!/bin/sh\necho 1.9.1\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    assert find_dbt(str(tmp_path / "dbt.exe"), os.environ).version == "1.9.1"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no shebang lines")
def test_version_of_dbt_fusion_comes_from_its_output(tmp_path: Path) -> None:
    script = tmp_path / "dbt"
    script.write_text("#!/bin/sh\necho dbt-fusion 2.0.8\n", encoding="utf-8")
    script.chmod(0o755)
    dbt = find_dbt(str(script), os.environ)
    assert (dbt.version, dbt.version_series, dbt.major_minor) == ("2.0.8", "2", (2, 0))


def test_missing_dbt_is_reported(dev: Shop, tmp_path: Path) -> None:
    done = run(replace(dev, dbt=tmp_path / "no"), "build")
    assert done.exit_code == 2
    assert f"no dbt at {tmp_path / 'no'}" in done.stderr


def test_program_that_cannot_start_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot start"):
        dbt_process.run_dbt([str(tmp_path)], os.environ)


@pytest.mark.dbt
def test_version_of_installed_dbt_is_found() -> None:
    assert find_dbt(str(require_program("dbt", "dbt")), os.environ).version_series == "1.11"


@pytest.mark.parametrize(
    ("words", "version", "flags"),
    [
        ("build -s m", "1.5.12", "build --defer --state /s -s m"),
        ("--debug build -s m", "1.5.12", "--debug build --defer --state /s -s m"),
        ("--target build run", "1.11.0", "--target build run --defer --state /s"),
        (
            "--log-format=json docs generate",
            "1.11.0",
            "--log-format=json docs generate --defer --state /s",
        ),
        (
            "build --state /o",
            "1.6.0",
            "build --defer-state /s --state /o".replace("build", "build --defer"),
        ),
        ("ls -s state:new", "1.8.0", "ls --state /s -s state:new"),
        ("seed --state=/o", "1.8.0", "seed --state=/o"),
        ("source freshness", "1.5.0", "source freshness --state /s"),
        ("source snapshot-freshness", "1.5.0", "source snapshot-freshness --state /s"),
        (
            "--indirect-selection cautious run",
            "1.11.0",
            "--indirect-selection cautious run --defer --state /s",
        ),
        ("clone", "2.0.1", "clone --state /s"),
        ("retry", "1.7.0", "retry"),
        ("retry", "1.8.0", "retry --defer-state /s"),
        ("debug", "1.11.0", "debug"),
        ("docs serve", "1.11.0", "docs serve"),
        ("run -- x", "1.11.0", "run --defer --state /s -- x"),
    ],
)
def test_flags_follow_rules_of_dbt_version(words: str, version: str, flags: str) -> None:
    line = compose_command(
        words.split(),
        dbt=DbtInstallation(Path("dbt"), version),
        state=Path("/s"),
        favor_state=False,
        environ={},
    )
    assert line.words == ("dbt", *flags.replace("/s", str(Path("/s"))).split())


@pytest.mark.parametrize(
    ("words", "favor", "expected"),
    [
        ("run", True, True),
        ("run --no-favor-state", True, False),
        ("run --favor-state", False, True),
        ("ls", True, False),
        ("run", False, False),
    ],
)
def test_favor_state_flag_requires_defer_flag(words: str, favor: bool, expected: bool) -> None:
    line = compose_command(
        words.split(),
        dbt=DbtInstallation(Path("dbt"), "1.11.0"),
        state=Path("/s"),
        favor_state=favor,
        environ={},
    )
    assert ("--favor-state" in line.words) is expected
    assert "--favor-state" not in line.words or "--defer" in line.words


def test_all_defer_variables_are_removed() -> None:
    environ = dict.fromkeys(command_line.DEFER_VARIABLES, "x") | {
        "PATH": "/bin",
        "DBT_TARGET": "ci",
    }
    line = compose_command(
        ["run"],
        dbt=DbtInstallation(Path("dbt"), "1.11.0"),
        state=Path("/s"),
        favor_state=False,
        environ=environ,
    )
    assert line.environment == {"PATH": "/bin", "DBT_TARGET": "ci"}
    assert set(line.removed) == set(command_line.DEFER_VARIABLES)


@pytest.mark.parametrize("name", ["DBT_NO_FAVOR_STATE", "DBT_ENGINE_NO_FAVOR_STATE"])
def test_no_favor_state_variable_of_dbt_2_is_removed(name: str) -> None:
    line = compose_command(
        ["run"],
        dbt=DbtInstallation(Path("dbt"), "2.0.1"),
        state=Path("/s"),
        favor_state=True,
        environ={name: "1"},
    )
    assert "--favor-state" in line.words
    assert line.environment == {}
    assert line.removed == (name,)
    assert shell_variables.conflicting_variables({name: "1"}, {"DBT_DEFER": "true"}) == [name]


@pytest.mark.parametrize("shell", ["github", "dotenv"])
def test_script_without_unset_turns_switches_off(shell: str) -> None:
    names = ["DBT_DEFER", "DBT_NO_FAVOR_STATE", "DBT_ENGINE_FAVOR_STATE", "DBT_STATE"]
    script = shell_variables.format_script(shell, {}, names)
    assert script.splitlines() == [
        *("DBT_DEFER=false", "DBT_NO_FAVOR_STATE=false", "DBT_ENGINE_FAVOR_STATE=false"),
        "DBT_STATE=",
    ]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no shebang lines")
@pytest.mark.parametrize("command", [("run", "build"), ("explain",)])
def test_dbt_receives_no_token(
    command: tuple[str, ...], artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dbt = recorded_dbt(tmp_path / "bin")
    for name in ("ALTIMATE_API_KEY", "DATAPILOT_TOKEN", "ALTIMATE_INSTANCE_NAME", "WAREHOUSE_KEY"):
        monkeypatch.setenv(name, f"secret of {name}")
    name, *words = command
    origin = ("--dbt", dbt.path, "--manifest-path", artifacts, "--project-dir", PROJECT)
    done = datapilot("dbt", "defer", name, *origin, *words)
    assert "Warning" not in done.stderr
    assert {"ALTIMATE_INSTANCE_NAME", "WAREHOUSE_KEY", "PATH"} <= dbt.variables
    assert not {"ALTIMATE_API_KEY", "DATAPILOT_TOKEN"} & dbt.variables


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "no dbt command given"),
        ("--debug", "no dbt command given"),
        ("biuld -s m", "'biuld' is not a command of dbt"),
        ("--target run", "no dbt command given"),
        ("dbt build", "omit the word dbt"),
    ],
)
def test_words_without_command_are_rejected(words: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_command(words.split())


def test_quoted_words_are_rejected() -> None:
    with pytest.raises(UsageError, match="'build -s m' is a single argument"):
        find_command(["build -s m"])


def test_options_that_contradict_deferral_are_rejected() -> None:
    for words, message in (
        ("run --no-defer", "--no-defer contradicts"),
        ("run --defer-state=/o", "--defer-state contra"),
    ):
        with pytest.raises(UsageError, match=message):
            compose_command(
                words.split(),
                dbt=DbtInstallation(Path("dbt"), "1.11.0"),
                state=Path("/s"),
                favor_state=False,
                environ={},
            )
    with pytest.raises(
        UsageError, match=r"dbt 1\.5\.0 cannot select by one state and defer to another"
    ):
        compose_command(
            ["run", "--state", "o"],
            dbt=DbtInstallation(Path("dbt"), "1.5.0"),
            state=Path("/s"),
            favor_state=False,
            environ={},
        )


@pytest.mark.skipif(os.name == "nt", reason="the recording program is a shell script")
@pytest.mark.parametrize("words", ["deps", "clean", "debug", "parse", "run-operation nop"])
def test_command_without_state_needs_no_manifest(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    monkeypatch.setenv("DBT_DEFER_STATE", "/nowhere")
    dbt = recorded_dbt(tmp_path / "bin")
    origin = ("--dbt", dbt.path, "--manifest-path", tmp_path / "missing")
    done = datapilot("dbt", "defer", "run", *origin, *words.split())
    assert (done.exit_code, done.stderr) == (
        0,
        f"`dbt {words.split()[0]}` does not use state. Running it unchanged\n",
    )
    assert set(words.split()) <= set(dbt.words)
    assert datapilot("dbt", "defer", "run", *origin, "ls").exit_code == 2


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", '{"args": 1}', '{"args": {"which": "seed"}}', '{"args": {"which": null}}'),
        *('{"args": {"which": ["run"]}}', '{"args": {"which": "run", "defer": 1, "state": ["x"]}}'),
    ],
)
def test_retry_of_unknown_run_is_left_to_dbt(content: str, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "run_results.json").write_text(content, encoding="utf-8")
    last_run.check_retry(["retry"], DbtProject(tmp_path, "shop", tmp_path / "target"))


@pytest.mark.parametrize("state", ["x" * 5000, "\0", "\ud800"])
def test_retry_with_impossible_state_path_is_rejected(state: str, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    arguments = {"which": "run", "defer": True, "state": state}
    (tmp_path / "target" / "run_results.json").write_text(json.dumps({"args": arguments}))
    with pytest.raises(UsageError, match=r"no longer contains a manifest\.json"):
        last_run.check_retry(["retry"], DbtProject(tmp_path, "shop", tmp_path / "target"))
