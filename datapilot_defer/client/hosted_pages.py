"""URLs of the web pages of an instance. The hosted services serve them from separate hosts."""

from __future__ import annotations

from urllib.parse import quote

from datapilot_defer.config import DEFAULT_URL

# Source: `map_url_to_instance` of altimate-datapilot-cli 0.3.8, without its entry for a
# developer's machine: http://localhost:8000 may be an instance of ours, which has its own pages.
_HOSTED_SITES = {
    DEFAULT_URL: "app.myaltimate.com",
    "https://api.getaltimate.com": "app.getaltimate.com",
    "https://api.tryaltimate.com": "demo.tryaltimate.com",
}


def find_site(url: str, instance_name: str) -> str:
    """Return the URL of an instance's web pages, without a trailing slash. url: that of its API."""
    site = _HOSTED_SITES.get(url.removesuffix(":443"))  # the port of https may be explicit
    if site is None:
        return url
    return f"https://{quote(instance_name, safe='')}.{site}"
