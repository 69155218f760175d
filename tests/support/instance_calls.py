"""API calls of a client."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import requests

from tests.support.instances import RunningInstance

SECONDS = 30
T = TypeVar("T")


def call(
    instance: RunningInstance, method: str, path: str, *, token: str | None = None, **more: Any
) -> requests.Response:
    """Send an API request. path: the path without the leading slash."""
    headers = instance.headers_of(token or instance.token)
    return requests.request(
        method, f"{instance.url}/{path}", headers=headers, timeout=SECONDS, **more
    )


def make_integration(
    instance: RunningInstance, name: str = "shop", environment: str = "PROD"
) -> int:
    """Create an integration and return its id."""
    answer = call(
        instance,
        "POST",
        "dbt/v1/project_integration",
        json={"name": name, "environment": environment},
    )
    assert answer.status_code == 200, answer.text
    return int(answer.json()["dbt_core_integration_id"])


def announce(
    instance: RunningInstance,
    integration_id: int,
    kind: str = "manifest",
    environment: str = "PROD",
    token: str | None = None,
) -> requests.Response:
    """Request a signed URL for an upload."""
    query = {
        "dbt_core_integration_id": str(integration_id),
        "dbt_core_integration_environment_type": environment,
        "file_type": kind,
    }
    return call(instance, "GET", "dbt/v1/signed_url", token=token, params=query)


def upload(instance: RunningInstance, integration_id: int, content: bytes, **announced: Any) -> int:
    """Announce and PUT a file without verifying it, and return its id."""
    answer = announce(instance, integration_id, **announced)
    assert answer.status_code == 200, answer.text
    put = requests.put(answer.json()["url"], data=content, timeout=SECONDS)
    assert put.status_code == 200, put.text
    return int(answer.json()["dbt_core_integration_file_id"])


def verify(
    instance: RunningInstance, file_id: int, token: str | None = None, **more: Any
) -> requests.Response:
    """Verify an uploaded file."""
    body = {"dbt_core_integration_file_id": file_id, **more}
    return call(instance, "POST", "dbt/v1/verify_upload", token=token, json=body)


def onboard(
    instance: RunningInstance, integration_id: int, content: bytes, **announced: Any
) -> int:
    """Upload and verify a file, which makes it current, and return its id."""
    file_id = upload(instance, integration_id, content, **announced)
    answer = verify(instance, file_id, announced.get("token"))
    assert answer.status_code == 200, answer.text
    return file_id


def fetch(
    instance: RunningInstance, integration_id: int, token: str | None = None, **query: Any
) -> requests.Response:
    """Request the URL of the current artifact."""
    params = {"artifact_type": "manifest", "dbt_core_integration_id": integration_id, **query}
    return call(instance, "GET", "dbt/v1/fetch_artifact_url", token=token, params=params)


def pull(instance: RunningInstance, integration_id: int, **query: Any) -> bytes:
    """Return the bytes of the current artifact."""
    answer = fetch(instance, integration_id, **query)
    assert answer.status_code == 200, answer.text
    download = requests.get(answer.json()["url"], timeout=SECONDS)
    assert download.status_code == 200, download.text
    return download.content


def show(
    instance: RunningInstance, integration_id: int, environment: str = "PROD"
) -> dict[str, Any]:
    """Return an environment with its history."""
    answer = call(instance, "GET", f"dbt/v1/project_integrations/{integration_id}/{environment}")
    assert answer.status_code == 200, answer.text
    overview: dict[str, Any] = answer.json()
    return overview


def start_ingestion(
    instance: RunningInstance, integration_id: int, token: str | None = None
) -> requests.Response:
    """Send the last API call of an onboarding."""
    body = {
        "dbt_core_integration_environment_type": "PROD",
        "dbt_core_integration_id": integration_id,
    }
    return call(instance, "POST", "dbt/v1/start_dbt_ingestion", token=token, json=body)


def wait_until(condition: Callable[[], T | None]) -> T:
    """Call `condition` until it returns a true value. Fail the test after a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    pytest.fail("the condition did not become true within a minute")


_SECTIONS = (
    *("sources", "macros", "docs", "exposures", "metrics", "groups", "selectors", "disabled"),
    *("parent_map", "child_map", "group_map", "saved_queries", "semantic_models", "unit_tests"),
)


def manifest(
    *models: str,
    project: str = "shop",
    at: str = "2026-11-22T10:00:00Z",
    body: str = "select 1",
    database: str = "warehouse",
    schema: str = "prod",
) -> bytes:
    """Return a small valid manifest with these models."""
    metadata = {
        "dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v12.json",
        "dbt_version": "1.11.16",
        "generated_at": at,
        "project_name": project,
        "project_id": hashlib.md5(project.encode(), usedforsecurity=False).hexdigest(),
        "adapter_type": "duckdb",
    }
    nodes = {
        f"model.{project}.{name}": {
            "unique_id": f"model.{project}.{name}",
            "resource_type": "model",
            "database": database,
            "schema": schema,
            "name": name,
            "alias": name,
            "package_name": project,
            "path": f"{name}.sql",
            "original_file_path": f"models/{name}.sql",
            "fqn": [project, name],
            "checksum": {"name": "sha256", "checksum": body},
        }
        for name in models or ("orders", "customers")
    }
    sections: dict[str, object] = {name: {} for name in _SECTIONS}
    return json.dumps({"metadata": metadata, "nodes": nodes, **sections}).encode()


def catalog(at: str = "2026-11-22T10:00:00Z") -> bytes:
    """Return a small valid catalog."""
    metadata = {
        "dbt_schema_version": "https://schemas.getdbt.com/dbt/catalog/v1.json",
        "generated_at": at,
    }
    return json.dumps({"metadata": metadata, "nodes": {}, "sources": {}, "errors": None}).encode()
