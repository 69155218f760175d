"""Load manifests with dbt-core's loader, in an environment with dbt.

Reads one path per line and writes one line of JSON for each.

dbt is imported as its command line imports it: dbt-adapters then adds "javascript" to the loader's
languages, without which dbt 1.11 would reject the manifests that it writes. `--bare` omits that.
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
