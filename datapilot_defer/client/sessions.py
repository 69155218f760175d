"""HTTP sessions: headers, authentication and TLS certificates of all requests of one command."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any
from urllib.parse import urlsplit

import requests

from datapilot_defer.client import certificates
from datapilot_defer.config import read_boolean_variable
from datapilot_defer.credentials import is_loopback
from datapilot_defer.version import program_version


class TokenAuth(requests.auth.AuthBase):
    """Authentication of API calls by token and instance name.

    It also prevents the use of ~/.netrc. token: "" sends neither the token nor the instance name.
    """

    def __init__(self, token: str, instance_name: str) -> None:
        self._headers: dict[str, str] = {}
        if token:
            self._headers = {"Authorization": f"Bearer {token}", "x-tenant": instance_name}

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the headers."""
        request.headers.update(self._headers)
        return request


class NoAuth(requests.auth.AuthBase):
    """No authentication, for signed URLs. It prevents the use of ~/.netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Return the request unchanged."""
        return request


class _Session(requests.Session):
    """A session that does not follow redirects and bypasses proxies for loopback hosts.

    requests would read the bodies of redirects without a limit. A proxy on another machine could
    not reach a server on this one, but would read the token.
    """

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return None, so that the requests library does not follow redirects."""
        return None

    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        """Return the settings of a request. Remove the proxies if the host is a loopback host."""
        settings = super().merge_environment_settings(url, proxies, stream, verify, cert)
        if is_loopback(urlsplit(str(url)).hostname or ""):
            settings["proxies"] = {}
        return settings


def create_session(auth: requests.auth.AuthBase, *, ci_name: str | None) -> requests.Session:
    """Return a session with our headers and the certificate authorities that the environment sets.

    Raises UsageError if the environment specifies unusable certificate authorities.
    """
    session = _Session()
    session.auth = auth
    session.headers["User-Agent"] = user_agent(ci_name)
    session.headers["Accept"] = "application/json, */*"
    session.headers["Accept-Encoding"] = "gzip, deflate"
    bundle = certificates.find_ca_bundle(os.environ)
    if bundle:
        session.verify = bundle
    if read_boolean_variable(os.environ, "DATAPILOT_SYSTEM_CERTIFICATES"):
        session.mount("https://", certificates.create_system_store_adapter())
    return session


def find_proxy(url: str) -> str | None:
    """Return the URL of the proxy that a session uses for a URL, or None."""
    if is_loopback(urlsplit(url).hostname or ""):
        return None
    return requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))


def user_agent(ci_name: str | None = None) -> str:
    """Return the User-Agent header: program, Python version, operating system and CI system."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    agent = f"datapilot-defer/{program_version()} python/{python} {platform.system().lower()}"
    if ci_name:
        agent += f" ({ci_name})"
    return agent
