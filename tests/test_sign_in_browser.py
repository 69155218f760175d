"""Sign-in from a browser over plain HTTP, where it sends no Sec-Fetch-Site."""

from __future__ import annotations

import pytest

from tests.support.environments import require
from tests.support.instances import RunningInstance

# This name is not "localhost": Chromium regards plain HTTP to it as not trustworthy.
HOST = "defer.test"
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--no-proxy-server"),
    f"--host-resolver-rules=MAP {HOST} 127.0.0.1",
)


@pytest.mark.browser
def test_the_sign_in_form_works_without_tls(instance: RunningInstance) -> None:
    chromium = require("chromium")
    from playwright.sync_api import Request, sync_playwright

    url = instance.url.replace("127.0.0.1", HOST)
    requests: list[Request] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=list(OPTIONS))
        page = browser.new_page()
        page.on("request", lambda request: requests.append(request))
        page.goto(f"{url}/sign-in")
        page.get_by_label("Token").fill(instance.token)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{url}/settings/integrations")
        (form,) = (request for request in requests if request.method == "POST")
        headers = form.all_headers()
        browser.close()
    assert headers["origin"] == url
    assert "sec-fetch-site" not in headers
