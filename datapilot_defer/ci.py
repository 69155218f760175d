"""The CI system or orchestrator that runs this process.

It provides the commit, branch and build URL of an upload. Each row of CI_SYSTEMS lists the
environment variables that the product's documentation (2026) defines. `ci_log` handles what the
product reads from the output of a job.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from datapilot_defer.files import read_regular_file
from datapilot_defer.formatting import replace_unprintable, to_single_line

if TYPE_CHECKING:
    from collections.abc import Mapping

# An instance stores and shows these facts. No real value is longer.
_MAX_NAME_LENGTH = 250
_MAX_URL_LENGTH = 1000
# GitHub limits the size of an event to 25 MB.
_MAX_EVENT_BYTES = 25_000_000
# Everything before the last @ of a URL's authority; \1 is the scheme with its slashes.
_USER_INFO = re.compile(r"^((?:[a-z][a-z0-9+.-]*:(?=[/\\]))?[/\\]*)[^/?#\\]*@", re.IGNORECASE)


@dataclass(frozen=True)
class CiSystem:
    """One CI system or orchestrator and its environment variables.

    marker: the variable that is set in every run. commits, branches, build_urls: variables in order
    of precedence. build_url_template: the build URL of a product whose variables contain only its
    parts.
    """

    name: str
    marker: str
    commits: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    build_urls: tuple[str, ...] = ()
    build_url_template: str | None = None


GITHUB_ACTIONS = CiSystem(
    "GitHub Actions",
    "GITHUB_ACTIONS",
    commits=("GITHUB_SHA",),
    branches=("GITHUB_HEAD_REF", "GITHUB_REF_NAME"),
    build_url_template="{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}",
)
CI_SYSTEMS = (
    GITHUB_ACTIONS,
    CiSystem(
        "GitLab CI",
        "GITLAB_CI",
        commits=("CI_COMMIT_SHA",),
        branches=("CI_COMMIT_REF_NAME",),
        build_urls=("CI_JOB_URL", "CI_PIPELINE_URL"),
    ),
    CiSystem(
        "CircleCI",
        "CIRCLECI",
        commits=("CIRCLE_SHA1",),
        branches=("CIRCLE_BRANCH", "CIRCLE_TAG"),
        build_urls=("CIRCLE_BUILD_URL",),
    ),
    CiSystem(
        "Buildkite",
        "BUILDKITE",
        commits=("BUILDKITE_COMMIT",),
        branches=("BUILDKITE_BRANCH",),
        build_urls=("BUILDKITE_BUILD_URL",),
    ),
    CiSystem(
        "Azure Pipelines",
        "TF_BUILD",
        commits=("BUILD_SOURCEVERSION",),
        branches=("BUILD_SOURCEBRANCHNAME",),
        build_url_template="{SYSTEM_COLLECTIONURI}{SYSTEM_TEAMPROJECT}/_build/results"
        "?buildId={BUILD_BUILDID}",
    ),
    CiSystem(
        "Bitbucket Pipelines",
        "BITBUCKET_BUILD_NUMBER",
        commits=("BITBUCKET_COMMIT",),
        branches=("BITBUCKET_BRANCH",),
        build_url_template="{BITBUCKET_GIT_HTTP_ORIGIN}/pipelines/results/{BITBUCKET_BUILD_NUMBER}",
    ),
    CiSystem(
        "TeamCity",
        "TEAMCITY_VERSION",
        commits=("BUILD_VCS_NUMBER",),
        branches=("BUILD_VCS_BRANCH",),
        build_urls=("BUILD_URL",),
    ),
    CiSystem(
        "Jenkins",
        "JENKINS_URL",
        commits=("GIT_COMMIT",),
        branches=("GIT_BRANCH", "BRANCH_NAME"),
        build_urls=("BUILD_URL",),
    ),
    CiSystem(
        "Airflow",
        "AIRFLOW_CTX_DAG_ID",
        build_url_template="airflow://{AIRFLOW_CTX_DAG_ID}/{AIRFLOW_CTX_TASK_ID}"
        "/{AIRFLOW_CTX_DAG_RUN_ID}",
    ),
    CiSystem("CI", "CI"),  # any other product; those above set this variable too
)


@dataclass(frozen=True)
class CiRun:
    """One run of a CI system or orchestrator. A fact that it does not provide is None.

    The facts contain no control characters, their lengths are limited, and the URL has no
    user-info.
    """

    system: CiSystem
    commit: str | None = None
    branch: str | None = None
    build_url: str | None = None


def detect_ci(environ: Mapping[str, str]) -> CiRun | None:
    """Return the run that this process belongs to; None outside CI."""
    for system in CI_SYSTEMS:
        if _is_set(environ, system.marker):
            return _describe_run(system, environ)
    return None


def is_github(environ: Mapping[str, str]) -> bool:
    """Return whether this is a job of GitHub Actions, or of a product compatible with it."""
    return _is_set(environ, GITHUB_ACTIONS.marker)


def _describe_run(system: CiSystem, environ: Mapping[str, str]) -> CiRun:
    commit = _pull_request_commit(environ) or _first_value(environ, system.commits)
    branch = _first_value(environ, system.branches)
    build_url = _first_value(environ, system.build_urls) or _compose_build_url(system, environ)
    return CiRun(
        system,
        commit=_clean_text(commit, _MAX_NAME_LENGTH),
        branch=_clean_text(branch, _MAX_NAME_LENGTH),
        build_url=_clean_url(build_url),
    )


def _clean_url(url: str | None) -> str | None:
    """Return a URL without user-info, which may contain a password; None for an invalid URL."""
    if url is None:
        return None
    # The URL is truncated last: a cut before the @ would leave a part of the password.
    shown = _USER_INFO.sub(r"\1", replace_unprintable(url, "").strip())
    try:
        _ = urlsplit(shown).port  # fails on the rest of user-info that contains a slash
    except ValueError:
        return None
    return shown[:_MAX_URL_LENGTH] or None


def _clean_text(text: str | None, max_length: int) -> str | None:
    """Return text as one line of limited length without control characters; None if it is empty."""
    if text is None:
        return None
    return to_single_line(text, max_length) or None


def _pull_request_commit(environ: Mapping[str, str]) -> str | None:
    """Return the head commit of the pull request that triggered a GitHub job; None otherwise.

    In such a job, GITHUB_SHA is a merge commit that exists nowhere else.
    """
    path = environ.get("GITHUB_EVENT_PATH")
    if not path or not environ.get("GITHUB_EVENT_NAME", "").startswith("pull_request"):
        return None
    try:
        event = json.loads(read_regular_file(Path(path), _MAX_EVENT_BYTES))
        sha = event["pull_request"]["head"]["sha"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None  # an upload works without it
    return sha if isinstance(sha, str) else None


def _is_set(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").lower() not in ("", "0", "false")


def _first_value(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)


def _compose_build_url(system: CiSystem, environ: Mapping[str, str]) -> str | None:
    if system.build_url_template is None:
        return None
    try:
        return system.build_url_template.format_map(environ)
    except KeyError:
        return None
