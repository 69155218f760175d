"""Detection of CI systems, the facts of a run, and annotations, summaries and outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from datapilot_defer import ci
from datapilot_defer.artifact import Provenance
from datapilot_defer.ci import CiRun
from tests.support.commands import access, create_integration, datapilot
from tests.support.instances import RunningInstance
from tests.support.json_contract import check_output
from tests.support.protocol_server import TOKEN, Reply, protocol_server

GITHUB = {
    "CI": "true",
    "GITHUB_ACTIONS": "true",
    "GITHUB_SHA": "ffac537e",
    "GITHUB_REF_NAME": "main",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "octo/shop",
    "GITHUB_RUN_ID": "1658821493",
}
SYSTEMS = {system.name: system for system in ci.CI_SYSTEMS}


def ci_run(name: str, *facts: str | None) -> CiRun:
    return CiRun(SYSTEMS[name], *facts)


RUNS: dict[str, tuple[Mapping[str, str], CiRun]] = {
    "GitHub": (
        GITHUB,
        ci_run(
            "GitHub Actions",
            "ffac537e",
            "main",
            "https://github.com/octo/shop/actions/runs/1658821493",
        ),
    ),
    "GitHub, of a pull request": (
        {**GITHUB, "GITHUB_HEAD_REF": "feature", "GITHUB_REF_NAME": "7/merge"},
        ci_run(
            "GitHub Actions",
            "ffac537e",
            "feature",
            "https://github.com/octo/shop/actions/runs/1658821493",
        ),
    ),
    "GitLab": (
        {
            "CI": "true",
            "GITLAB_CI": "true",
            "CI_COMMIT_SHA": "1ecfd275",
            "CI_COMMIT_REF_NAME": "main",
            "CI_JOB_URL": "https://gitlab.com/a/b/-/jobs/1",
            "CI_PIPELINE_URL": "https://gitlab.com/a/b/-/pipelines/2",
        },
        ci_run("GitLab CI", "1ecfd275", "main", "https://gitlab.com/a/b/-/jobs/1"),
    ),
    "Jenkins": (
        {
            "JENKINS_URL": "https://ci.example.com/",
            "GIT_COMMIT": "4f3c0c1",
            "GIT_BRANCH": "origin/main",
            "BUILD_URL": "https://ci.example.com/job/shop/15/",
        },
        ci_run("Jenkins", "4f3c0c1", "origin/main", "https://ci.example.com/job/shop/15/"),
    ),
    "Jenkins, of a multibranch pipeline": (
        {
            "JENKINS_URL": "https://ci.example.com/",
            "BRANCH_NAME": "main",
            "BUILD_URL": "https://ci.example.com/job/1/",
        },
        ci_run("Jenkins", None, "main", "https://ci.example.com/job/1/"),
    ),
    "CircleCI": (
        {
            "CI": "true",
            "CIRCLECI": "true",
            "CIRCLE_SHA1": "9b1fe7a",
            "CIRCLE_TAG": "v1",
            "CIRCLE_BUILD_URL": "https://circleci.com/gh/a/b/1",
        },
        ci_run("CircleCI", "9b1fe7a", "v1", "https://circleci.com/gh/a/b/1"),
    ),
    "Buildkite": (
        {
            "CI": "true",
            "BUILDKITE": "true",
            "BUILDKITE_COMMIT": "83a20ec",
            "BUILDKITE_BRANCH": "main",
            "BUILDKITE_BUILD_URL": "https://buildkite.com/a/b/builds/1",
        },
        ci_run("Buildkite", "83a20ec", "main", "https://buildkite.com/a/b/builds/1"),
    ),
    "Azure Pipelines": (
        {
            "TF_BUILD": "True",
            "BUILD_SOURCEVERSION": "7c9c0f1",
            "BUILD_SOURCEBRANCHNAME": "main",
            "SYSTEM_COLLECTIONURI": "https://dev.azure.com/acme/",
            "SYSTEM_TEAMPROJECT": "shop",
            "BUILD_BUILDID": "12",
        },
        ci_run(
            "Azure Pipelines",
            "7c9c0f1",
            "main",
            "https://dev.azure.com/acme/shop/_build/results?buildId=12",
        ),
    ),
    "Bitbucket": (
        {
            "CI": "true",
            "BITBUCKET_BUILD_NUMBER": "3",
            "BITBUCKET_COMMIT": "f7f6c2b",
            "BITBUCKET_BRANCH": "main",
            "BITBUCKET_GIT_HTTP_ORIGIN": "https://bitbucket.org/acme/shop",
        },
        ci_run(
            "Bitbucket Pipelines",
            "f7f6c2b",
            "main",
            "https://bitbucket.org/acme/shop/pipelines/results/3",
        ),
    ),
    "TeamCity": (
        {
            "TEAMCITY_VERSION": "2026.1",
            "BUILD_VCS_NUMBER": "61ad9f0",
            "BUILD_URL": "https://tc.example.com/build/9",
        },
        ci_run("TeamCity", "61ad9f0", None, "https://tc.example.com/build/9"),
    ),
    "Airflow": (
        {
            "AIRFLOW_CTX_DAG_ID": "nightly",
            "AIRFLOW_CTX_TASK_ID": "onboard",
            "AIRFLOW_CTX_DAG_RUN_ID": "manual__2026",
        },
        ci_run("Airflow", None, None, "airflow://nightly/onboard/manual__2026"),
    ),
    "Airflow with some variables": ({"AIRFLOW_CTX_DAG_ID": "nightly"}, ci_run("Airflow")),
    "an unknown one": ({"CI": "1"}, ci_run("CI")),
}


@pytest.mark.parametrize("name", RUNS)
def test_ci_system_is_detected_by_its_variables(name: str) -> None:
    environ, run = RUNS[name]
    assert ci.detect_ci(environ) == run


@pytest.mark.parametrize(
    "environ", [{}, {"CI": ""}, {"CI": "false"}, {"CI": "0"}, {"GITHUB_ACTIONS": "False"}]
)
def test_machine_without_ci_variables_is_not_ci(environ: Mapping[str, str]) -> None:
    assert ci.detect_ci(environ) is None


def test_provenance_json_omits_unknown_facts() -> None:
    assert Provenance(None, "main", None).to_json() == {"branch": "main"}


# Complete commands


@pytest.fixture
def manifest(artifacts: Path) -> Path:
    return artifacts / "manifest.json"


def onboard(manifest: Path, *more: str) -> list[str]:
    return ["dbt", "onboard", "--integration-id", "1", "--manifest-path", str(manifest), *more]


@pytest.fixture
def github(tmp_path: Path) -> dict[str, str]:
    """Return the environment variables of a GitHub job, including its output and summary files."""
    files = {"GITHUB_OUTPUT": tmp_path / "output", "GITHUB_STEP_SUMMARY": tmp_path / "summary"}
    return {**GITHUB, **{name: str(path) for name, path in files.items()}}


def test_github_summary_and_outputs_have_result(
    instance: RunningInstance, manifest: Path, github: dict[str, str]
) -> None:
    assert (
        datapilot("dbt", "integrations", "create", "--name", "shop", env=access(instance)).exit_code
        == 0
    )
    done = datapilot(*onboard(manifest, "--json"), env={**access(instance), **github})
    assert done.exit_code == 0, done.output
    sha256 = done.json["artifacts"][0]["sha256"]
    lines = Path(github["GITHUB_OUTPUT"]).read_text(encoding="utf-8").splitlines()
    assert lines == [
        f"sha256={sha256}",
        "file-id=1",
        f"status-url={instance.url}/settings/integrations/1/PROD",
    ]
    summary = Path(github["GITHUB_STEP_SUMMARY"]).read_text(encoding="utf-8")
    page = f"{instance.url}/settings/integrations/1/PROD"
    assert summary.startswith(f"### Onboarded to [integration 1\\, environment PROD]({page})\n")
    assert f"| manifest | {manifest.stat().st_size:,} | 1\\.11\\.16 | `{sha256}` |" in summary
    assert instance.token not in done.output + summary + "".join(lines)


def test_text_summary_and_json_report_unchanged_artifact(
    instance: RunningInstance, manifest: Path, github: dict[str, str]
) -> None:
    create_integration(instance)
    assert datapilot(*onboard(manifest), env=access(instance)).exit_code == 0
    done = datapilot(*onboard(manifest), env={**access(instance), **github})
    assert done.stdout.startswith("Unchanged in integration 1, environment PROD:\n")
    as_json = datapilot(*onboard(manifest, "--json"), env={**access(instance), **github}).json
    assert as_json["unchanged"] is True
    summary = Path(github["GITHUB_STEP_SUMMARY"]).read_text(encoding="utf-8")
    assert summary.count("### Unchanged in [integration 1") == 2
    assert "Onboarded" not in summary


def test_github_summary_has_failure(manifest: Path, github: dict[str, str]) -> None:
    manifest = manifest.parent / "none.json"
    done = datapilot(*onboard(manifest), env=github)
    assert done.exit_code == 2
    summary = Path(github["GITHUB_STEP_SUMMARY"]).read_text(encoding="utf-8")
    assert summary.startswith("### datapilot dbt onboard: failed\n\n```text\n")
    assert f"{manifest}: no such file" in summary


def test_github_summary_has_unconfirmed_result(manifest: Path, github: dict[str, str]) -> None:
    with protocol_server() as hosted:
        hosted.answers["GET /dbt/v1/signed_url"] = lambda _: Reply({}, 501)
        done = datapilot(*onboard(manifest, "--soft-fail"), env={**hosted.access, **github})
    assert done.exit_code == 0
    summary = Path(github["GITHUB_STEP_SUMMARY"]).read_text(encoding="utf-8")
    assert summary.startswith("### datapilot dbt onboard: not confirmed\n")


def test_onboard_sends_commit_branch_and_build(manifest: Path) -> None:
    with protocol_server() as hosted:
        done = datapilot(*onboard(manifest), env={**hosted.access, **GITHUB})
        assert done.exit_code == 0, done.output
        sent = next(
            request.json for request in hosted.requests if request.path.endswith("verify_upload")
        )
        agents = {request.headers["User-Agent"] for request in hosted.requests}
    assert (sent["commit"], sent["branch"]) == ("ffac537e", "main")
    assert sent["build_url"] == "https://github.com/octo/shop/actions/runs/1658821493"
    assert len(agents) == 1
    assert agents.pop().endswith("(GitHub Actions)")


def test_github_failure_is_annotation(manifest: Path, github: dict[str, str]) -> None:
    with protocol_server() as hosted:
        hosted.answers["GET /dbt/v1/validate-permissions"] = lambda _: Reply(
            {"detail": "100% no\r\n::error::x"}, 403
        )
        done = datapilot(*onboard(manifest), env={**hosted.access, **github})
    assert done.exit_code == 3
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("::error")]
    assert line.startswith(
        "::error title=datapilot::checking the permission to upload: not allowed: 100%25 no"
    )
    assert not any(line.startswith("::error::x") for line in done.stderr.splitlines())
    assert not Path(github["GITHUB_OUTPUT"]).exists()


@pytest.mark.parametrize("sign", ["CI", "GITLAB_CI", "JENKINS_URL", "AIRFLOW_CTX_DAG_ID"])
def test_ci_disables_prompts_and_keyring(sign: str, manifest: Path) -> None:
    done = datapilot(*onboard(manifest), env={sign: "true"}, stdin="an answer\n")
    assert done.exit_code == 2
    assert (
        "no instance name and no token. Set the environment variable ALTIMATE_INSTANCE_NAME"
        in done.stderr
    )
    assert done.stdout == ""


def test_json_is_last_line_of_merged_streams(manifest: Path) -> None:
    with protocol_server() as hosted:
        hosted.answers["POST /dbt/v1/start_dbt_ingestion"] = lambda _: Reply({"ok": False})
        merged = run_process(onboard(manifest, "--json", "-v"), hosted.access)
        assert json.loads(merged.stdout.splitlines()[-1])["exit_code"] == merged.returncode == 5
        del hosted.answers["POST /dbt/v1/start_dbt_ingestion"]
        merged = run_process(
            onboard(manifest, "--json", "-v", "--log-format", "json"), hosted.access
        )
    assert merged.returncode == 0
    assert json.loads(merged.stdout.splitlines()[-1])["ok"] is True
    for line in merged.stdout.splitlines()[:-1]:
        assert set(json.loads(line)) == {"time", "level", "message"}
    assert TOKEN not in merged.stdout


def test_dotenv_file_in_current_directory_is_ignored(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with protocol_server() as hosted:
        values = {
            **hosted.access,
            **{f"DATAPILOT_{name[9:]}": value for name, value in hosted.access.items()},
        }
        (tmp_path / ".env").write_text(
            "\n".join(f"{name}={value}" for name, value in values.items()), encoding="utf-8"
        )
        done = run_process(onboard(manifest), {})
        assert hosted.requests == []
    assert done.returncode == 2


def run_process(
    arguments: list[str], environ: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `datapilot ARGUMENTS` with stderr merged into stdout, as Airflow does."""
    done = subprocess.run(
        [sys.executable, "-m", "datapilot_defer", *arguments],
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    check_output(arguments, done.stdout, done.returncode)
    return done


SOFT = {
    "the instance is unavailable": (Reply({}, 599), 0),
    "the token is rejected": (Reply({}, 401), 3),
    "the permission is missing": (Reply({}, 403), 3),
    "the integration does not exist": (Reply({}, 404), 4),
    "the request is rejected": (Reply({}, 422), 2),
}


@pytest.mark.parametrize("failure", SOFT)
@pytest.mark.parametrize("enabled_by", ["--soft-fail", "DATAPILOT_SOFT_FAIL"])
def test_soft_fail_succeeds_only_if_instance_is_unavailable(
    failure: str, enabled_by: str, manifest: Path
) -> None:
    answer, code = SOFT[failure]
    options = [enabled_by] if enabled_by.startswith("-") else []
    with protocol_server() as hosted:
        hosted.answers["GET /dbt/v1/signed_url"] = lambda _: answer
        done = datapilot(
            *onboard(manifest, "--json", *options),
            env={**hosted.access, **({} if options else {enabled_by: "1"})},
        )
    assert done.exit_code == code, done.output
    assert done.json["ok"] is False
    assert done.json["exit_code"] == code
    assert ("NOT CONFIRMED" in done.stderr) is (code == 0)


def test_soft_fail_fails_for_rejected_artifact(tmp_path: Path) -> None:
    broken = tmp_path / "manifest.json"
    broken.write_text("{", encoding="utf-8")
    assert datapilot(*onboard(broken, "--soft-fail")).exit_code == 1


def test_soft_fail_fails_for_missing_token(manifest: Path) -> None:
    assert datapilot(*onboard(manifest, "--soft-fail")).exit_code == 2


def test_commit_of_pull_request_is_pushed_commit(tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    environ = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_SHA": "merge",
        "GITHUB_EVENT_NAME": "pull_request",
        "GITHUB_EVENT_PATH": str(event),
    }
    for content in ("", "[]", '{"pull_request": null}', '{"pull_request": {"head": {"sha": 7}}}'):
        event.write_text(content, encoding="utf-8")
        assert commit(environ) == "merge"
    event.write_text('{"pull_request": {"head": {"sha": "pushed"}}}', encoding="utf-8")
    assert commit(environ) == "pushed"
    assert commit({**environ, "GITHUB_EVENT_NAME": "push"}) == "merge"
    event.unlink()
    assert commit(environ) == "merge"


def commit(environ: dict[str, str]) -> str | None:
    run = ci.detect_ci(environ)
    return run.commit if run else None
