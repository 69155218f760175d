"""The web page in a real browser: as people use it, with eyes, a keyboard, or a screen reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.environments import require
from tests.support.instance_calls import (
    fetch,
    ingest,
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


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Integrations", exact=True).wait_for()


def datapilot_on_path(folder: Path) -> dict[str, str]:
    """An environment in which a shell finds `datapilot`: this very program."""
    folder.mkdir()
    program = folder / "datapilot"
    program.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m datapilot_defer "$@"\n', encoding="utf-8"
    )
    program.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
    }


@pytest.mark.skipif(os.name == "nt", reason="the command on the page is for a POSIX shell")
def test_from_signing_in_to_restoring_with_the_command_exactly_as_copied(
    page: Page, instance: RunningInstance, tmp_path: Path, artifacts: Path
) -> None:
    sign_in(page, instance.token)
    page.get_by_label("Name").fill("Ann's shop; $HOME")
    page.get_by_label("Environment").fill("it's PROD")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("button", name="Copy: Command to upload files").click()
    page.get_by_role("status").get_by_text("Copied").wait_for()
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
    page.get_by_role("button", name=f"Restore upload {first}").click()
    page.get_by_role("button", name=f"Restore upload {first + 1}").wait_for()
    assert fetch(instance, 1).json()["dbt_core_integration_file_id"] == first


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_axe_finds_nothing_wrong_and_nothing_sticks_out(
    page: Page, instance: RunningInstance, scheme: Any, width: int
) -> None:
    integration_id = make_integration(instance)
    make_integration(instance, environment="STAGING")
    onboard(instance, integration_id, manifest("a", "b", at="2026-11-22T10:00:00Z"))
    onboard(instance, integration_id, manifest("b", "c", at="2026-11-22T11:00:00Z"))
    ingest(instance, integration_id)
    verify(instance, upload(instance, integration_id, manifest("only", project="other")))
    instance.new_token("upload", integration_id=integration_id)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    check(page)
    sign_in(page, instance.token)
    for path in (
        "/settings/integrations",
        "/settings/integrations/1/PROD",
        "/settings/api-keys",
        "/docs",
    ):
        page.goto(f"{instance.url}{path}")
        for details in page.locator("summary").all():
            details.click()
        check(page)


def check(page: Page) -> None:
    """Fail for violations that axe-core finds, and for a page that scrolls horizontally."""
    page.evaluate(
        (require("node") / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    )
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    problems = [
        (each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]
    ]
    assert problems == [], page.url
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.url


def test_everything_can_be_done_with_the_keyboard_alone(
    page: Page, instance: RunningInstance
) -> None:
    page.wait_for_function(
        "document.hasFocus() && document.activeElement.tagName === 'INPUT'"
    )  # by itself, in a moment
    page.keyboard.type(instance.token)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Integrations", exact=True).wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    seen = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")
        )
    assert {"Integrations", "API keys", "Sign out", "name", "environment", "type", "Add"} <= seen
    page.get_by_label("Name").focus()
    page.keyboard.type("typed")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="typed").wait_for()


def test_without_javascript_everything_but_the_copy_button_works(
    browser: Browser, instance: RunningInstance
) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(instance.url)
        sign_in(page, instance.token)
        page.get_by_label("Name").fill("plain")
        page.get_by_role("button", name="Add", exact=True).click()
        page.get_by_text("datapilot dbt onboard").wait_for()
        assert page.locator("button.copy:visible").count() == 0
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("heading", name="Sign in").wait_for()


def test_a_made_api_key_can_be_copied(page: Page, instance: RunningInstance) -> None:
    sign_in(page, instance.token)
    page.get_by_role("link", name="API keys").click()
    page.get_by_label("Name").fill("nightly job")
    page.get_by_role("button", name="Create").click()
    page.get_by_role("button", name="Copy: The new token").click()
    page.get_by_role("status").get_by_text("Copied").wait_for()
    token = page.evaluate("navigator.clipboard.readText()")
    assert fetch(instance, make_integration(instance), token).status_code == 404


def test_over_plain_http_from_another_machine_the_copy_button_works_too(
    page: Page, instance: RunningInstance
) -> None:
    """There the browser gives pages no clipboard."""
    make_integration(instance, environment="it's PROD")
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    sign_in(page, instance.token)
    page.get_by_role("button", name="Copy: Command to upload files").click()
    page.get_by_role("status").get_by_text("Copied").wait_for()
    shown = page.locator("pre code").first.text_content()
    with page.context.expect_page():
        page.evaluate("window.open('/docs')")
    other = page.context.pages[-1]
    other.bring_to_front()
    assert other.evaluate("navigator.clipboard.readText()") == shown
