"""Markers of tests that need an external environment, and the option --fast that leaves them out.

setup.cfg registers the markers; tests/support/environments.py lists which environment needs which one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.environments import current_test

LEFT_OUT_BY_FAST = ("airflow", "browser", "dbt", "peer", "slow")
# A test gets the markers of the fixtures that it uses.
MARKERS_OF_FIXTURES = {
    "airflow": "airflow",
    "browser": "browser",
    "dbt": "dbt",
    "larger": "dbt",
    "shop": "dbt",
    "shops": "dbt",
    "wheel": "slow",
}
# The tests of a module that share one of these expensive fixtures run in the same worker.
SHARED_FIXTURES = ("airflow", "dbt", "shops", "wheel")

_left_out = pytest.StashKey[Counter[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option --fast."""
    parser.addoption(
        "--fast",
        action="store_true",
        help="leave out the tests that need an external environment or take long",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Count what --fast leaves out."""
    config.stash[_left_out] = Counter()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests, put those that share a fixture into one group, and apply --fast."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        for fixture, marker in MARKERS_OF_FIXTURES.items():
            if fixture in fixtures:
                item.add_marker(marker)
        for fixture in SHARED_FIXTURES:
            if fixture in fixtures:
                group = fixture if fixture == "wheel" else f"{item.path.stem}-{fixture}"
                item.add_marker(pytest.mark.xdist_group(group))
    if not config.getoption("--fast"):
        return
    left_out = [item for item in items if _markers_left_out(item)]
    config.stash[_left_out].update(
        marker for item in left_out for marker in _markers_left_out(item)
    )
    config.stash[_left_out]["tests"] = len(left_out)
    items[:] = [item for item in items if not _markers_left_out(item)]
    config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Tell `require` which test runs, so that it can check the test's markers."""
    current_test.item = item
    try:
        return (yield)
    finally:
        current_test.item = None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the counts from a worker of pytest-xdist to the main process."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = dict(session.config.stash[_left_out])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take the counts from a worker: every worker collects the same tests."""
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    output = getattr(node, "workeroutput", {})
    config.stash[_left_out] = Counter(output.get("left_out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what --fast left out."""
    counts = terminalreporter.config.stash[_left_out]
    if not counts["tests"]:
        return
    by_marker = ", ".join(f"{name} {counts[name]}" for name in LEFT_OUT_BY_FAST if counts[name])
    terminalreporter.write_line(
        f"--fast left out {counts['tests']} tests ({by_marker}); `scripts/test` runs all"
    )


def _markers_left_out(item: pytest.Item) -> list[str]:
    return [name for name in LEFT_OUT_BY_FAST if item.get_closest_marker(name)]
