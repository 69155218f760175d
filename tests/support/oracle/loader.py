"""Load manifests with dbt-core's loader, in an environment with dbt.

Read one path per line and write one line of JSON for each.

The program imports dbt like its command line does. dbt-adapters then adds "javascript" to the
loader's languages, without which dbt 1.11 rejects its own manifests. `--bare` omits this import.
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
    except Exception as error:  # noqa: BLE001  any exception means rejection
        text = str(error)
        answer = {"loads": False, "why": f"{type(error).__name__}: {text[:160]} … {text[-80:]}"}
    print(json.dumps(answer), flush=True)
