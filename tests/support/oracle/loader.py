"""Asks dbt-core's own loader. Run inside an environment with dbt; reads one path per line, answers one line of JSON.

dbt is imported as its command line imports it: dbt-adapters then teaches the loader's enumeration of languages
"javascript", without which dbt 1.11 would refuse the manifests that it writes. With `--bare` that is left out.
"""

import json
import sys

if "--bare" not in sys.argv:
    import dbt.cli.main  # noqa: F401
from dbt.artifacts.schemas.manifest import WritableManifest

for line in sys.stdin:
    try:
        WritableManifest.read_and_check_versions(line.rstrip("\n"))
        answer = {"loads": True, "why": ""}
    except Exception as error:  # noqa: BLE001  whatever dbt raises, it does not load
        text = str(error)
        answer = {"loads": False, "why": f"{type(error).__name__}: {text[:160]} … {text[-80:]}"}
    print(json.dumps(answer), flush=True)
