"""Responses of a future release, which extend those of this release.

with fault_proxy(instance.url, FUTURE_ANSWERS) as proxy:
    ...                                    # the client uses proxy.url
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.fault_proxy import At, Exchange

_HEADERS = b"Deprecation: @1800000000\r\nX-Future: yes\r\nServer-Timing: total;dur=1\r\n"
_UNKNOWN_FIELDS = {
    "future": {"nested": [1, None, "text"]},
    "ratio": 0.5,
    "is_new": True,
    "nothing": None,
}
_UNKNOWN_VALUES = {
    "file_type": "column_lineage",
    "kind": "column_lineage",
    "status": "quarantined",
    "reason": "promoted",
    "integration_type": "dbt_fusion",
    "environment_type": "EU/PROD 2",
}


def answer_as_future(exchange: Exchange) -> None:
    """Forward a request and add unknown fields and values to a response of the API."""
    answer = exchange.forward(exchange.body())
    head, _, body = answer.partition(b"\r\n\r\n")
    head = re.sub(rb"(?im)^connection: close(\r\n|\Z)", b"", head).rstrip(b"\r\n")
    is_artifact = "/files/" in exchange.call
    if re.search(rb"(?im)^content-type: application/json", head) and body and not is_artifact:
        body = json.dumps(_extend(json.loads(body))).encode()
        head = re.sub(rb"(?im)^content-length: *\d+", b"content-length: %d" % len(body), head)
    exchange.send(head + b"\r\n" + _HEADERS + b"\r\n" + body)


FUTURE_ANSWERS = At("", answer_as_future)


def _extend(value: Any) -> Any:
    """Add unknown fields to each object and an object with unknown values to each list."""
    if isinstance(value, dict):
        return {**{name: _extend(entry) for name, entry in value.items()}, **_UNKNOWN_FIELDS}
    if isinstance(value, list):
        entries = [_extend(entry) for entry in value]
        if entries and isinstance(entries[0], dict):
            entries.append(_with_unknown_values(entries[-1]))
        return entries
    return value


def _with_unknown_values(entry: dict[str, Any]) -> dict[str, Any]:
    unknown: dict[str, object] = {
        name: value for name, value in _UNKNOWN_VALUES.items() if name in entry
    }
    if "id" in entry:
        unknown["id"] = 900_000 + int(entry["id"])
    if "name" in entry:
        unknown["name"] = "of another type"
    return {**entry, **unknown}
