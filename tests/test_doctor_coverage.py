"""doctor finds what makes other commands fail, as far as what is set goes."""

from __future__ import annotations

import pytest

from tests.support.commands import Outcome, datapilot
from tests.support.protocol_server import TOKEN, ProtocolServer


def statuses(done: Outcome) -> dict[str, str]:
    """The status of each step by its name."""
    return {step["name"]: step["status"] for step in done.json["steps"]}


def details(done: Outcome) -> dict[str, str]:
    """The detail of each step by its name."""
    return {step["name"]: step["detail"] for step in done.json["steps"]}


@pytest.mark.parametrize(
    "missing",
    [
        {"ALTIMATE_API_KEY": ""},
        {"ALTIMATE_INSTANCE_NAME": ""},
        {"ALTIMATE_API_KEY": "", "ALTIMATE_INSTANCE_NAME": ""},
    ],
)
def test_what_needs_only_the_url_is_checked_with_only_the_url(
    missing: dict[str, str], hosted: ProtocolServer
) -> None:
    done = datapilot("doctor", "--json", env={**hosted.access, **missing})
    assert (done.exit_code, statuses(done)["configuration"]) == (2, "failed")
    assert {statuses(done)[name] for name in ("proxy", "dns", "connection")} == {"passed"}
    assert "does not say what time it is" in details(done)["clock"]
    assert details(done)["credentials"] == "not tried: the configuration is not complete"
    assert hosted.asked == ["GET /health"]
    assert "Authorization" not in hosted.seen[0].headers
    assert TOKEN not in done.output
