"""The guides work as pasted, with real dbt and a real instance; the reference pages are complete.

Shell blocks marked `bash runnable` run in one shell for each page, and the jobs of the CI
configurations as the CI system would run them.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from datapilot_defer.artifact import Kind
from datapilot_defer.cli.main import root
from tests.support.commands import access, create_integration, datapilot
from tests.support.dbt_project import Shop, copy_recorded_artifacts
from tests.support.environments import REPOSITORY
from tests.support.guide_pages import GUIDES, CiValues, read_jobs, runnable_script
from tests.support.guide_runner import COMMIT, Reader, reader
from tests.support.instances import RunningInstance

DOCS = REPOSITORY / "docs"
NEW_PAGES = [
    *sorted(GUIDES.glob("*.md")),
    *sorted((DOCS / "reference").glob("*.md")),
    DOCS / "README.md",
    DOCS / "what-leaves-my-machine.md",
]
RUNNABLE = [page for page in NEW_PAGES if runnable_script(page)]
CI_PAGES = ("github-actions", "gitlab", "jenkins")
CHANGED_MODEL = "models/marts/revenue_by_country.sql"
PROJECTS = ("finance", "marketing")
bash_only = pytest.mark.skipif(os.name == "nt", reason="the guides are for bash")


@pytest.fixture
def follower(shop: Shop, instance: RunningInstance, tmp_path: Path) -> Iterator[Reader]:
    """Return a reader whose integration `shop` has production's manifest."""
    create_integration(instance)
    manifest = shop.prod_artifacts / "manifest.json"
    words = ("dbt", "onboard", "--integration-name", "shop", "--manifest-path", manifest)
    onboarded = datapilot(*words, env=access(instance))
    assert onboarded.exit_code == 0, onboarded.output
    with reader(shop, instance, tmp_path) as made:
        yield made


def prepare_page(page: Path, follower: Reader) -> None:
    """Provide what a page requires in its text."""
    project = follower.shop.project
    if page.stem == "several-projects":
        for name in PROJECTS:
            make_built_project(project / "projects" / name, name)
    if page.stem in ("exit-codes", "migrating", "what-leaves-my-machine"):
        (project / "target").mkdir()
        manifest = follower.shop.prod_artifacts / "manifest.json"
        (project / "target" / "manifest.json").write_bytes(manifest.read_bytes())


def make_built_project(directory: Path, name: str) -> None:
    """Create a project with the manifest of a build."""
    target = directory / "target"
    target.mkdir(parents=True)
    (directory / "dbt_project.yml").write_text(f"name: {name}\n", encoding="utf-8")
    recorded = copy_recorded_artifacts(target) / Kind.MANIFEST.file_name
    text = recorded.read_text(encoding="utf-8")
    own = text.replace('"project_name": "shop"', f'"project_name": "{name}"')
    recorded.write_text(own, encoding="utf-8")
    (target / Kind.RUN_RESULTS.file_name).unlink()


def ci_values(follower: Reader) -> CiValues:
    """Return tokens of the scopes that the guides ask for, and values of the CI system."""
    instance = follower.instance
    upload, read = instance.new_token("upload"), instance.new_token("read")
    secrets = {
        "MANIFEST_UPLOAD_TOKEN": upload,
        "MANIFEST_READ_TOKEN": read,
        "manifest-upload-token": upload,
        "manifest-read-token": read,
    }
    values = access(instance, token="not used")
    return CiValues(
        secrets,
        {
            "vars.ALTIMATE_URL": values["ALTIMATE_URL"],
            "vars.ALTIMATE_INSTANCE_NAME": values["ALTIMATE_INSTANCE_NAME"],
            "github.event.number": "7",
            "github.token": "token-of-the-job",
            "CI_MERGE_REQUEST_IID": "7",
            "CI_PROJECT_DIR": str(follower.shop.project),
            "env.CHANGE_ID": "7",
        },
    )


@bash_only
@pytest.mark.parametrize("page", RUNNABLE, ids=[page.stem for page in RUNNABLE])
def test_the_shell_blocks_of_a_page_run_as_pasted(page: Path, follower: Reader) -> None:
    prepare_page(page, follower)
    if page.stem == "slim-ci":
        change_model(follower)
    output = follower.run(runnable_script(page), follower.environment)
    if page.stem in ("laptop", "slim-ci"):
        assert "Completed successfully" in output
        assert '"prod"."orders"' in compiled_model(follower)
    if page.stem == "environments":
        assert "Deferring to shop STAGING" in output
        assert '"warehouse"."prod" to "warehouse"."staging"' in output
    if page.stem == "packages":
        assert output.rstrip().endswith('from "team"."prod"."orders"')


@bash_only
@pytest.mark.parametrize("page", CI_PAGES)
def test_the_jobs_onboard_production_and_build_what_a_pull_request_changes(
    page: str, follower: Reader
) -> None:
    jobs = read_jobs(GUIDES / f"{page}.md", ci_values(follower))
    assert {job.is_pull_request for job in jobs} == {False, True}
    address = access(follower.instance)
    del address["ALTIMATE_API_KEY"]
    for job in sorted(jobs, key=lambda job: job.is_pull_request):
        if job.is_pull_request:
            change_model(follower)
        environment = {**follower.ci_environment(page), **job.variables, **address}
        output = follower.run(job.script, environment)
    assert "r_7.revenue_by_country" in output  # in the schema of the pull request
    assert "of stg_orders" not in output
    assert '"prod"."orders"' in compiled_model(follower)
    assert latest_commit(follower) == COMMIT
    if page == "github-actions":
        check_results_on_github(follower.directory)


def check_results_on_github(directory: Path) -> None:
    """Check the summary of the job and the outputs of its step."""
    summary = (directory / "summary.md").read_text(encoding="utf-8")
    assert "Onboarded to" in summary
    outputs = (directory / "outputs").read_text(encoding="utf-8").splitlines()
    names = [line.partition("=")[0] for line in outputs]
    assert names == ["sha256", "file-id", "status-url"]


@bash_only
def test_a_pull_request_of_a_fork_uses_the_published_manifest(follower: Reader) -> None:
    values = ci_values(follower)
    production, fork = read_jobs(GUIDES / "fork-pull-requests.md", values)
    environment = follower.ci_environment("github-actions")
    follower.run(production.script, environment)
    change_model(follower)
    for name in ("ALTIMATE_URL", "ALTIMATE_INSTANCE_NAME"):
        del environment[name]
    output = follower.run(fork.script, environment)
    assert "shop.marts.revenue_by_country" in output
    assert "shop.marts.orders" not in output


@bash_only
def test_the_matrix_onboards_each_project(follower: Reader) -> None:
    for name in PROJECTS:
        create_integration(follower.instance, name)
        make_built_project(follower.shop.project / "projects" / name, name)
    jobs = read_jobs(GUIDES / "several-projects.md", ci_values(follower))
    assert [job.variables["PROJECT"] for job in jobs] == list(PROJECTS)
    for job in jobs:
        environment = follower.ci_environment("github-actions")
        assert "Onboarded to" in follower.run(job.script, {**environment, **job.variables})


def change_model(follower: Reader) -> None:
    """Change a model as a pull request does, in a checkout without a target directory."""
    project = follower.shop.project
    shutil.rmtree(project / "target", ignore_errors=True)
    with (project / CHANGED_MODEL).open("a", encoding="utf-8") as file:
        file.write("-- changed\n")


def compiled_model(follower: Reader) -> str:
    path = follower.shop.project / "target" / "compiled" / "shop" / CHANGED_MODEL
    return path.read_text(encoding="utf-8")


def latest_commit(follower: Reader) -> str:
    """Return the commit of the manifest that is current."""
    words = ("dbt", "pull", "--integration-name", "shop", "--json", "-q")
    pulled = datapilot(*words, env=access(follower.instance))
    assert pulled.exit_code == 0, pulled.output
    return str(pulled.json["commit"])


@pytest.mark.parametrize("page", NEW_PAGES, ids=[page.stem for page in NEW_PAGES])
def test_the_program_understands_every_command_of_a_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    code = re.findall(r"^```.*?^```|`[^`\n]+`", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in code for line in block.strip("`").splitlines()]
    for line in lines:
        found = re.search(r"\bdatapilot(?:-defer)? [a-z][^`']*", line)
        if found is None or "$" in found[0].split()[1] or line.lstrip().startswith("- uses"):
            continue
        check_command(re.split(r" (?:\|\||[|;&<>]) ?|…|\)$", found[0])[0])


def check_command(line: str) -> None:
    """Parse a command line with the program's own parser, without running it."""
    _, *words = shlex.split(line, comments=True)
    command: click.Command = root
    while words and isinstance(command, click.Group):
        if words[0] in ("project-health", "mcp", "knowledge"):
            return  # of altimate-datapilot-cli
        command = command.commands[words.pop(0)]
    context = click.Context(command, **command.context_settings)
    _, remaining, _ = command.make_parser(context).parse_args(words)
    assert remaining == [] or context.allow_extra_args, line


@pytest.mark.parametrize("page", NEW_PAGES, ids=[page.stem for page in NEW_PAGES])
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        linked = page
        if path:
            linked = (page.parent / path).resolve()
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_can_be_reached_from_the_readme() -> None:
    unread = [REPOSITORY / "README.md"]
    reached: set[Path] = set()
    while unread:
        page = unread.pop()
        reached.add(page)
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            linked = (page.parent / target).resolve()
            if linked.suffix == ".md" and linked.is_file() and linked not in reached:
                unread.append(linked)
    assert sorted(set(DOCS.rglob("*.md")) - reached) == []


@pytest.mark.parametrize("page", sorted(GUIDES.glob("*.md")), ids=lambda page: page.stem)
def test_a_guide_begins_with_its_readers_and_is_short(page: Path) -> None:
    heading, blank, first, *_ = page.read_text(encoding="utf-8").splitlines()
    assert heading.startswith("# ")
    assert blank == ""
    assert re.match(r"For [^.]*: at the end,", f"{first} ") or first.startswith("For ")
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 110
