"""Options of `serve` as settings of the instance."""

from __future__ import annotations

from pathlib import Path

import pytest

from datapilot_defer.cli.instance.serve import serve
from tests.support.commands import datapilot


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1", 1),
        ("1000", 1000),
        ("500MB", 500_000_000),
        ("50GB", 50_000_000_000),
        ("50 gb", 50_000_000_000),
        ("1.5TB", 1_500_000_000_000),
        ("20kB", 20_000),
        ("7B", 7),
    ],
)
def test_a_size_is_a_number_of_bytes_or_has_a_unit(text: str, size_bytes: int) -> None:
    context = serve.make_context("serve", ["--data", "x", "--max-bytes", text])
    assert context.params["max_stored_bytes"] == size_bytes


def test_without_a_size_there_is_no_limit() -> None:
    assert serve.make_context("serve", ["--data", "x"]).params["max_stored_bytes"] is None


@pytest.mark.parametrize(
    "url", ["https://datapilot.example.com", "http://10.0.0.1:8585/", "https://[::1]:8585/sub/"]
)
def test_a_public_url_has_a_scheme_and_a_host(url: str) -> None:
    context = serve.make_context("serve", ["--data", "x", "--public-url", url])
    assert context.params["public_url"] == url


@pytest.mark.parametrize(
    "text",
    [
        *("", "foo", "datapilot.example.com", "//example.com", "ftp://example.com", "https://"),
        *("https://a:b@example.com", "https://example.com?x=1", "https://example.com/#top"),
        *(
            "https://example.com:port",
            "https://[::1",
            "https://exa mple.com",
            "https://exämple.com",
        ),
    ],
)
def test_a_public_url_that_no_client_can_open_is_rejected(tmp_path: Path, text: str) -> None:
    rejected = datapilot("instance", "serve", "--data", tmp_path / "data", f"--public-url={text}")
    assert rejected.exit_code == 2
    assert "Use the URL that clients connect to" in rejected.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "text", ["", "0", "0GB", "-1", "5XB", "GB", "1e3", "5 0", "0.1", "٣", "9" * 20]
)
def test_a_text_that_is_not_a_size_is_rejected(tmp_path: Path, text: str) -> None:
    rejected = datapilot("instance", "serve", "--data", tmp_path / "data", f"--max-bytes={text}")
    assert rejected.exit_code == 2
    assert (
        "is not a size. Use a number of bytes, or a number with a unit, such as 500MB."
        in rejected.stderr
    )
    assert not (tmp_path / "data").exists()
