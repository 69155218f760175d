"""Markers of tests that need an external environment, the option --fast, and parallel runs.

setup.cfg registers the markers. environments.py lists the markers of each environment.
"""

from __future__ import annotations

import os
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
# The tests of these modules share an expensive fixture, so that each module runs in one worker.
# They start first because they take the most time.
MODULES_IN_ONE_WORKER = (
    "tests/test_defer_explain.py",
    "tests/test_defer_dbt.py",
    "tests/test_airflow.py",
    "tests/test_validation_oracle.py",
    "tests/test_web_browser.py",
    "tests/test_packaging.py",
)

_left_out = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option --fast."""
    parser.addoption(
        "--fast",
        action="store_true",
        help="leave out the tests that need an external environment or take long",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Initialize the counts of tests that --fast leaves out."""
    config.stash[_left_out] = {}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return three workers for two processors, because many tests wait for other processes."""
    processors = os.cpu_count() or 1
    return processors + (processors + 1) // 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Distribute single tests, but keep each of MODULES_IN_ONE_WORKER together."""
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False
    scheduler = LoadScopeScheduling(config, log)
    # Replaces the marker xdist_group, which pytest-xdist 3.8 ignores under pytest 9.2.
    scheduler._split_scope = _unit_of
    return scheduler


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests, apply --fast, and sort the longest first in a parallel run."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        for fixture, marker in MARKERS_OF_FIXTURES.items():
            if fixture in fixtures:
                item.add_marker(marker)
    if hasattr(config, "workerinput"):
        items.sort(key=_start_order)
    if not config.getoption("--fast"):
        return
    left_out = [item for item in items if _markers_left_out(item)]
    counts: dict[str, int] = Counter(
        marker for item in left_out for marker in _markers_left_out(item)
    )
    counts["tests"] = len(left_out)
    config.stash[_left_out] = dict(counts)
    items[:] = [item for item in items if not _markers_left_out(item)]
    config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Set the running test, whose markers `require` checks."""
    current_test.item = item
    try:
        return (yield)
    finally:
        current_test.item = None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the counts from a worker of pytest-xdist to the main process."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = session.config.stash[_left_out]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take the counts from one worker, because every worker collects the same tests."""
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    output = getattr(node, "workeroutput", {})
    config.stash[_left_out] = output.get("left_out", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the number of tests that --fast left out."""
    counts = terminalreporter.config.stash[_left_out]
    if not counts:
        return
    by_marker = ", ".join(f"{name} {counts[name]}" for name in LEFT_OUT_BY_FAST if name in counts)
    terminalreporter.write_line(
        f"--fast left out {counts['tests']} tests ({by_marker}); `scripts/test` runs all"
    )


def _unit_of(test_id: str) -> str:
    module = test_id.split("::", 1)[0]
    if module in MODULES_IN_ONE_WORKER:
        return module
    return test_id


def _start_order(item: pytest.Item) -> tuple[int, bool]:
    module = item.nodeid.split("::", 1)[0]
    if module in MODULES_IN_ONE_WORKER:
        return MODULES_IN_ONE_WORKER.index(module), False
    return len(MODULES_IN_ONE_WORKER), not _markers_left_out(item)


def _markers_left_out(item: pytest.Item) -> list[str]:
    return [name for name in LEFT_OUT_BY_FAST if item.get_closest_marker(name)]
