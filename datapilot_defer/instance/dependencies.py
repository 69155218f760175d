"""Dependencies that routes of the API and the web pages share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import Storage


async def current_storage(request: Request) -> Storage:
    """Return the storage of the application."""
    storage: Storage = request.app.state.storage
    return storage


async def current_settings(request: Request) -> InstanceSettings:
    """Return the settings of the application."""
    settings: InstanceSettings = request.app.state.settings
    return settings


CurrentStorage = Annotated[Storage, Depends(current_storage)]
CurrentSettings = Annotated[InstanceSettings, Depends(current_settings)]


async def public_base_url(request: Request, settings: CurrentSettings) -> str:
    """Return the base URL for clients of this instance, without a trailing slash."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    return str(request.base_url).rstrip("/")


BaseUrl = Annotated[str, Depends(public_base_url)]
