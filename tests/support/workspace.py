"""The settings file of the fixture `workspace` and the entry of its project `shop`."""

from __future__ import annotations

import json
from pathlib import Path

from datapilot_defer.defer.settings_file import SETTINGS_KEY

SETTINGS = """\
// the team's
{
    "editor.rulers": [100], // wide
    "dbt.deferConfigPerProject": {
        "other": {"deferToProduction": false},
    },
}
"""


def entry(workspace: Path, key: str = "shop") -> object:
    """Return the project's entry in the settings file, read as JSON without comments."""
    text = "\n".join(
        line.partition("//")[0] for line in settings_file(workspace).read_text("utf-8").splitlines()
    )
    return json.loads(text)[SETTINGS_KEY][key]


def settings_file(workspace: Path) -> Path:
    return workspace / ".vscode" / "settings.json"


def write(workspace: Path, value: object, key: str = "shop") -> None:
    """Write the settings like the extension's panel."""
    text = json.dumps({SETTINGS_KEY: {key: value}}, indent=4)
    settings_file(workspace).write_text(text, encoding="utf-8")


def local(directory: object, **more: object) -> dict[str, object]:
    """Return an entry of local mode."""
    return {
        "deferToProduction": True,
        "favorState": False,
        "manifestPathType": "local",
        "manifestPathForDeferral": str(directory),
        **more,
    }
