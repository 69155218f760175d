"""Which CI or orchestrator this is: commit, branch and build URL for the record, annotations for people.

The facts are each product's own list of predefined environment variables, as documented in 2026.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CiRun:
    """One run of a CI or orchestrator. A fact that it does not give is None."""

    name: str
    commit: str | None = None
    branch: str | None = None
    build_url: str | None = None

    def facts(self) -> dict[str, str]:
        """Commit, branch and build URL as fields for the instance; those that are known."""
        known = {"commit": self.commit, "branch": self.branch, "build_url": self.build_url}
        return {name: value for name, value in known.items() if value}


# Name, the variable that gives it away, then those of commit, branch and build URL: the first that is set counts.
CI_SYSTEMS: list[tuple[str, str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = [
    (
        "GitHub Actions",
        "GITHUB_ACTIONS",
        ("GITHUB_SHA",),
        ("GITHUB_HEAD_REF", "GITHUB_REF_NAME"),
        (),
    ),
    (
        "GitLab CI",
        "GITLAB_CI",
        ("CI_COMMIT_SHA",),
        ("CI_COMMIT_REF_NAME",),
        ("CI_JOB_URL", "CI_PIPELINE_URL"),
    ),
    (
        "CircleCI",
        "CIRCLECI",
        ("CIRCLE_SHA1",),
        ("CIRCLE_BRANCH", "CIRCLE_TAG"),
        ("CIRCLE_BUILD_URL",),
    ),
    (
        "Buildkite",
        "BUILDKITE",
        ("BUILDKITE_COMMIT",),
        ("BUILDKITE_BRANCH",),
        ("BUILDKITE_BUILD_URL",),
    ),
    ("Azure Pipelines", "TF_BUILD", ("BUILD_SOURCEVERSION",), ("BUILD_SOURCEBRANCHNAME",), ()),
    (
        "Bitbucket Pipelines",
        "BITBUCKET_BUILD_NUMBER",
        ("BITBUCKET_COMMIT",),
        ("BITBUCKET_BRANCH",),
        (),
    ),
    ("TeamCity", "TEAMCITY_VERSION", ("BUILD_VCS_NUMBER",), ("BUILD_VCS_BRANCH",), ("BUILD_URL",)),
    ("Jenkins", "JENKINS_URL", ("GIT_COMMIT",), ("GIT_BRANCH", "BRANCH_NAME"), ("BUILD_URL",)),
    ("Airflow", "AIRFLOW_CTX_DAG_ID", (), (), ()),
]


def detect_ci(environ: Mapping[str, str]) -> CiRun | None:
    """The run that this process is part of, or None on a laptop."""
    for name, sign, commit, branch, build_url in CI_SYSTEMS:
        if _is_set(environ, sign):
            url = _first_value(environ, build_url) or _compose_build_url(name, environ)
            return CiRun(
                name,
                _pull_request_commit(environ) or _first_value(environ, commit),
                _first_value(environ, branch),
                url,
            )
    return CiRun("CI") if _is_set(environ, "CI") else None


def _pull_request_commit(environ: Mapping[str, str]) -> str | None:
    """The commit that somebody pushed. On a pull request GITHUB_SHA is a merge that exists nowhere else."""
    path = environ.get("GITHUB_EVENT_PATH")
    if not path or not environ.get("GITHUB_EVENT_NAME", "").startswith("pull_request"):
        return None
    try:
        sha = json.loads(Path(path).read_text(encoding="utf-8"))["pull_request"]["head"]["sha"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a fact that is nice to have
    return sha if isinstance(sha, str) else None


def _is_set(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").lower() not in ("", "0", "false")


def _first_value(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)


def _compose_build_url(name: str, environ: Mapping[str, str]) -> str | None:
    """The page of a build whose product gives only its parts."""
    forms = {
        "GitHub Actions": "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}",
        "Azure Pipelines": "{SYSTEM_COLLECTIONURI}{SYSTEM_TEAMPROJECT}/_build/results?buildId={BUILD_BUILDID}",
        "Bitbucket Pipelines": "{BITBUCKET_GIT_HTTP_ORIGIN}/pipelines/results/{BITBUCKET_BUILD_NUMBER}",
        "Airflow": "airflow://{AIRFLOW_CTX_DAG_ID}/{AIRFLOW_CTX_TASK_ID}/{AIRFLOW_CTX_DAG_RUN_ID}",
    }
    try:
        return forms[name].format_map(environ)
    except KeyError:
        return None


def format_annotation(level: str, text: str) -> str:
    """GitHub's workflow command that shows `text` on the run's page. level: "error" or "warning".

    Source: "Workflow commands for GitHub Actions": %, CR and LF are escaped in the message.
    """
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{level} title=datapilot::{escaped}"


def append_summary(environ: Mapping[str, str], markdown: str) -> None:
    """Add to the page of this GitHub job, when it is one."""
    _append_to_file(environ, "GITHUB_STEP_SUMMARY", markdown + "\n")


def append_outputs(environ: Mapping[str, str], values: Mapping[str, str]) -> None:
    """Hand values to the later steps of this GitHub job, when it is one. Values hold no line break."""
    _append_to_file(
        environ, "GITHUB_OUTPUT", "".join(f"{name}={value}\n" for name, value in values.items())
    )


def _append_to_file(environ: Mapping[str, str], variable: str, text: str) -> None:
    if not environ.get(variable) or not _is_set(environ, "GITHUB_ACTIONS"):
        return
    try:
        with Path(environ[variable]).open("a", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except OSError:
        # The summary is a courtesy: a full or read-only runner disk must not fail an onboarding that worked.
        return
