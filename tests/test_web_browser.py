"""The web pages in a real browser, used with a mouse, a keyboard or a screen reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from datapilot_defer.instance.services import artifacts as artifact_service
from datapilot_defer.instance.services import integrations, tokens
from datapilot_defer.instance.services.principal import Principal
from datapilot_defer.storage.database import utc_now
from tests.support.environments import require
from tests.support.instance_calls import (
    catalog,
    fetch,
    make_integration,
    manifest,
    onboard,
    upload,
    verify,
)
from tests.support.instances import RunningInstance

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = require("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(chromium), args=list(QUIET))
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, instance: RunningInstance) -> Iterator[Page]:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(20_000)
    opened = context.new_page()
    problems: list[str] = []
    opened.on(
        "console",
        lambda message: problems.append(message.text) if message.type == "error" else None,
    )
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.goto(instance.url)
    yield opened
    context.close()
    assert problems == []


def accessibility_checker() -> str:
    """Return the source text of axe-core."""
    path = require("node") / "node_modules" / "axe-core" / "axe.min.js"
    return path.read_text(encoding="utf-8")


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Integrations", exact=True).wait_for()


def datapilot_on_path(directory: Path) -> dict[str, str]:
    """Return an environment in which a shell finds this program as `datapilot`."""
    directory.mkdir()
    program = directory / "datapilot"
    program.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m datapilot_defer "$@"\n', encoding="utf-8"
    )
    program.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{directory}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
    }


@pytest.mark.skipif(os.name == "nt", reason="the command on the page is for a POSIX shell")
def test_from_sign_in_to_a_restore_with_the_command_as_copied(
    page: Page, instance: RunningInstance, tmp_path: Path, artifacts: Path
) -> None:
    sign_in(page, instance.token)
    page.get_by_role("link", name="Add integration").click()
    page.get_by_label("Name").fill("Ann's shop; $HOME")
    page.get_by_label("Environment").fill("it's PROD")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("button", name="Copy: Command to upload files", exact=True).click()
    page.locator("#status").get_by_text("Copied").wait_for()
    command = page.evaluate("navigator.clipboard.readText()")
    environment = {**datapilot_on_path(tmp_path / "bin"), "ALTIMATE_API_KEY": instance.token}
    target = tmp_path / "target"
    target.mkdir()
    content = json.loads((artifacts / "manifest.json").read_bytes())

    def run_the_command(generated_at: str) -> None:
        content["metadata"]["generated_at"] = generated_at
        (target / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
        done = subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()

    run_the_command("2026-11-22T10:00:00Z")
    page.reload()
    page.get_by_role("cell", name="current").wait_for()
    first = fetch(instance, 1).json()["dbt_core_integration_file_id"]
    run_the_command("2026-11-22T11:00:00Z")
    page.reload()
    page.get_by_role("link", name=f"Restore upload {first}").click()
    page.get_by_role("heading", name="Restore manifest.json?").wait_for()
    page.get_by_role("button", name="Restore").click()
    page.get_by_text("The earlier upload was restored").wait_for()
    page.get_by_role("link", name=f"Restore upload {first + 1}").wait_for()
    assert fetch(instance, 1).json()["dbt_core_integration_file_id"] == first


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_every_page_is_accessible_and_no_wider_than_the_screen(
    page: Page, instance: RunningInstance, scheme: Any, width: int
) -> None:
    paths = make_every_page(instance)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    check(page)
    sign_in(page, instance.token)
    for path in paths:
        page.goto(f"{instance.url}{path}")
        for details in page.locator("summary").all():
            details.click()
        check(page)
    page.goto(f"{instance.url}/settings/tokens/create")
    page.get_by_label("Name").fill("job")
    page.get_by_role("button", name="Create").click()
    page.get_by_role("heading", name="New token").wait_for()
    check(page)


def make_every_page(instance: RunningInstance) -> list[str]:
    """Create what the pages show, and return their paths."""
    integration_id = make_integration(instance)
    make_integration(instance, environment="STAGING")
    make_integration(instance, "averyveryverylongname" * 9)
    for number in range(60):
        make_integration(instance, f"integration {number}")
    first = onboard(instance, integration_id, manifest("a", "b", at="2026-11-22T10:00:00Z"))
    onboard(instance, integration_id, manifest("b", "c", at="2026-11-22T11:00:00Z"))
    onboard(instance, integration_id, catalog(), kind="catalog")
    rejected = upload(instance, integration_id, manifest("only", project="other"))
    verify(instance, rejected, branch="averyveryverylongbranch" * 5)
    artifact_service.restore_artifact(
        instance.storage,
        find_admin(instance),
        integration_id=integration_id,
        environment="PROD",
        upload_id=first,
    )
    instance.new_token("upload", integration_id=integration_id)
    instance.new_token("read", name="old", expires_at=utc_now() - timedelta(days=1))
    integrations.delete_integration(instance.storage, find_admin(instance), integration_id=3)
    settings = "/settings/integrations"
    return [
        f"{settings}?done=deleted",
        f"{settings}?q=integration&page=2",
        f"{settings}/add",
        f"{settings}/1",
        f"{settings}/2/PROD",
        f"{settings}/1/PROD?done=restored",
        f"{settings}/1/PROD/uploads/{rejected}",
        f"{settings}/1/PROD/uploads/2",
        f"{settings}/1/PROD/uploads/2/restore",
        f"{settings}/1/PROD/uploads/{rejected}/accept",
        f"{settings}/undelete/3",
        "/settings/tokens",
        "/settings/tokens/1/revoke",
        "/settings/audit",
        "/docs",
    ]


def find_admin(instance: RunningInstance) -> Principal:
    """Return the caller with the admin token."""
    principal = tokens.authenticate_token(instance.storage, instance.token)
    assert principal is not None
    return principal


def check(page: Page) -> None:
    """Fail for violations that axe-core finds, and for a page that scrolls horizontally."""
    page.evaluate(accessibility_checker())
    report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    problems = [
        (each["id"], [node["html"] for node in each["nodes"]]) for each in report["violations"]
    ]
    assert problems == [], page.url
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.url
    wide = page.evaluate(
        "[...document.querySelectorAll('main *:not(.away, thead, thead *)')]"
        ".filter(each => each.getBoundingClientRect().right > innerWidth + 1)"
        ".map(each => each.outerHTML.slice(0, 100))"
    )
    assert wide == [], page.url


def test_everything_can_be_done_with_the_keyboard_alone(
    page: Page, instance: RunningInstance
) -> None:
    # The field receives the focus after a moment.
    page.wait_for_function("document.hasFocus() && document.activeElement.tagName === 'INPUT'")
    page.keyboard.type(instance.token)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Integrations", exact=True).wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    assert {"Integrations", "Tokens", "Audit log", "Sign out", "Add integration"} <= tab_stops(page)
    page.get_by_role("link", name="Add integration").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id === 'name'")
    assert {"environment", "type", "Add", "Cancel"} <= tab_stops(page)
    page.get_by_label("Name").focus()
    page.keyboard.type("typed")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="typed").wait_for()
    # The arrow keys select a tab of the commands.
    page.get_by_label("datapilot-defer").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text("--dbt_core_integration_id").wait_for()


def tab_stops(page: Page) -> set[str]:
    """Press Tab 20 times and return the ids or texts of the elements with the focus."""
    seen = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")
        )
    return seen


def test_without_javascript_everything_but_the_copy_button_works(
    browser: Browser, instance: RunningInstance
) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(instance.url)
        sign_in(page, instance.token)
        page.get_by_role("link", name="Add integration").click()
        page.get_by_label("Name").fill("plain")
        page.get_by_role("button", name="Add", exact=True).click()
        page.get_by_label("Command to upload files", exact=True).wait_for()
        assert page.get_by_text("--dbt_core_integration_id").is_hidden()
        page.get_by_text("altimate-datapilot-cli", exact=True).click()
        page.get_by_text("--dbt_core_integration_id").wait_for()
        assert page.get_by_label("Command to upload files", exact=True).is_hidden()
        assert page.locator("button.copy:visible").count() == 0
        page.get_by_role("link", name="Integration settings").click()
        page.get_by_label("Type plain to confirm").fill("plain")
        page.get_by_role("button", name="Delete integration").click()
        page.get_by_text("Recently deleted (1)").click()
        page.get_by_role("link", name="Undo").click()
        page.get_by_role("button", name="Undo deletion").click()
        page.get_by_text("The integration was restored.").wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("heading", name="Sign in").wait_for()


def test_a_new_token_can_be_copied_and_a_reload_creates_no_second_one(
    page: Page, instance: RunningInstance
) -> None:
    sign_in(page, instance.token)
    page.get_by_role("link", name="Tokens").click()
    page.get_by_role("link", name="Create token").click()
    page.get_by_label("Name").fill("nightly job")
    page.get_by_role("button", name="Create").click()
    page.get_by_role("button", name="Copy: The new token").click()
    page.locator("#status").get_by_text("Copied").wait_for()
    token = page.evaluate("navigator.clipboard.readText()")
    assert fetch(instance, make_integration(instance), token).status_code == 404
    page.reload()
    page.get_by_text("cannot be shown again").wait_for()
    assert token not in page.content()
    assert len(tokens.list_tokens(instance.storage, "acme")) == 2
    page.go_back()
    assert token not in page.content()


def test_over_plain_http_from_another_machine_the_copy_button_works_too(
    page: Page, instance: RunningInstance
) -> None:
    """The browser provides no clipboard API in this case."""
    make_integration(instance, environment="it's PROD")
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    sign_in(page, instance.token)
    page.get_by_role("link", name="shop", exact=True).click()
    page.get_by_role("button", name="Copy: Command to upload files", exact=True).click()
    page.locator("#status").get_by_text("Copied").wait_for()
    shown = page.locator("pre code").first.text_content()
    with page.context.expect_page():
        page.evaluate("window.open('/docs')")
    other = page.context.pages[-1]
    other.bring_to_front()
    assert other.evaluate("navigator.clipboard.readText()") == shown
