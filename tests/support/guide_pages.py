"""The pages of docs/guides: their shell blocks, and the jobs of their CI configurations.

A shell block with the info string `bash runnable` can be pasted. The jobs of a page are those of
its YAML blocks (GitHub Actions, GitLab) and of its Jenkinsfile, in the order of the page.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template
from typing import Any

import yaml

from tests.support.environments import REPOSITORY

GUIDES = REPOSITORY / "docs" / "guides"
_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_EXPRESSION = re.compile(r"\$\{\{\s*([\w.-]+)\s*\}\}")
_GITLAB_SETTINGS = {"default", "variables", "stages", "workflow", "cache", "image"}
# The groups of each: the quotation mark, and the command between two of it.
_GROOVY_COMMAND = re.compile(r"""\b(?:sh\s|script:\s)\s*('''|')(.+?)\1""", re.DOTALL)
_GROOVY_VARIABLE = re.compile(r"""^\s*([A-Z_]+) = (credentials\()?(['"])(.*?)\3""", re.MULTILINE)


@dataclass(frozen=True)
class Job:
    """One job of a CI configuration.

    variables: as the configuration sets them. secrets: those that it names.
    """

    name: str
    is_pull_request: bool
    script: str
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CiValues:
    """What a CI system puts into a configuration. secrets: by name, or by id in Jenkins."""

    secrets: Mapping[str, str]
    expressions: Mapping[str, str]


def read_blocks(page: Path) -> list[tuple[str, str]]:
    """Return the info string and the content of each code block."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def runnable_script(page: Path) -> str:
    """Return the shell blocks that can be pasted, as one script; "" when there are none."""
    blocks = read_blocks(page)
    return "".join(content for info, content in blocks if info == "bash runnable")


def read_jobs(page: Path, values: CiValues) -> list[Job]:
    """Return the jobs of the page's CI configurations."""
    jobs: list[Job] = []
    for info, content in read_blocks(page):
        if info == "groovy":
            jobs += _jenkins_jobs(content, values)
        elif info == "yaml":
            configuration = yaml.safe_load(content)
            if "jobs" in configuration:
                jobs += _github_jobs(configuration, values)
            else:
                jobs += _gitlab_jobs(configuration, values)
    return jobs


def _github_jobs(workflow: Mapping[Any, Any], values: CiValues) -> Iterator[Job]:
    triggers = workflow[True]  # YAML 1.1 reads the key `on` as a boolean
    for name, job in workflow["jobs"].items():
        lines: list[str] = []
        for step in job["steps"]:
            lines += _github_step(step)
        for expressions in _matrix_expressions(job):
            filled = replace(values, expressions={**values.expressions, **expressions})
            yield Job(
                name,
                "pull_request" in triggers,
                _fill_in("\n".join(lines), filled),
                {key: _fill_in(value, filled) for key, value in job.get("env", {}).items()},
            )


def _matrix_expressions(job: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the expressions of each run of a job: one run unless it has a matrix."""
    matrix = job.get("strategy", {}).get("matrix", {})
    return [
        {f"matrix.{name}": value for name, value in zip(matrix, combination, strict=True)}
        for combination in itertools.product(*matrix.values())
    ]


def _github_step(step: Mapping[str, Any]) -> list[str]:
    """Return the lines of a step, in a subshell with the variables of the step."""
    if "run" not in step:
        assert "uses" in step, step
        return []
    exports = [f"export {name}='{value}'" for name, value in step.get("env", {}).items()]
    return ["(", *exports, str(step["run"]), ")"]


def _fill_in(text: str, values: CiValues) -> str:
    """Replace the expressions of GitHub Actions. An unset secret is an empty text there."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name.startswith("secrets."):
            return values.secrets.get(name.removeprefix("secrets."), "")
        return values.expressions[name]

    return _EXPRESSION.sub(replace, text)


def _gitlab_jobs(configuration: Mapping[str, Any], values: CiValues) -> Iterator[Job]:
    before = configuration.get("default", {}).get("before_script", [])
    for name, job in configuration.items():
        if name in _GITLAB_SETTINGS:
            continue
        variables = {**configuration.get("variables", {}), **job.get("variables", {})}
        known = {**values.expressions, **values.secrets}
        yield Job(
            name,
            "merge_request_event" in str(job["rules"]),
            "\n".join([*before, *job["script"]]),
            {key: Template(str(text)).substitute(known) for key, text in variables.items()},
        )


def _jenkins_jobs(jenkinsfile: str, values: CiValues) -> Iterator[Job]:
    header, *stages = jenkinsfile.split("stage('")
    for stage in stages:
        name, _, body = stage.partition("'")
        variables: dict[str, str] = {}
        for variable, is_credential, _, text in _GROOVY_VARIABLE.findall(header + body):
            if is_credential:
                variables[variable] = values.secrets[text]
            else:
                variables[variable] = _fill_in_groovy(text, values)
        commands = [command for _, command in _GROOVY_COMMAND.findall(body)]
        yield Job(name, "changeRequest()" in body, "\n".join(commands), variables)


def _fill_in_groovy(text: str, values: CiValues) -> str:
    for name, value in values.expressions.items():
        text = text.replace(f"${{{name}}}", value)
    return text
