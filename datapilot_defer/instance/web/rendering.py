"""Rendering of the web pages."""

from __future__ import annotations

from functools import cache
from typing import Any
from urllib.parse import urlsplit

from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from datapilot_defer.errors import DatapilotError
from datapilot_defer.formatting import format_size, format_time_ago, format_timestamp
from datapilot_defer.instance.error_statuses import status_of
from datapilot_defer.instance.web.session import Session

# Messages to show after a form was submitted. The URL contains only the key, so that a link cannot
# display any other text.
_NOTICES = {
    "accepted": "The upload was accepted and is now current.",
    "added": "The integration was created. Run the upload command in the production dbt job.",
    "checks": "The upload checks were changed.",
    "deleted": "The integration was deleted. To undo this, open “Recently deleted” below.",
    "environment": "The environment was added.",
    "renamed": "The integration was renamed.",
    "restored": "The earlier upload was restored and is now current.",
    "revoked": "The token was revoked.",
    "undeleted": "The integration was restored.",
}
_ERROR_TITLES = {
    403: "Access denied",
    404: "Not found",
    409: "Conflict",
    422: "Invalid request",
    503: "Unavailable",
}


def render_page(
    template: str,
    session: Session | None,
    status: int = 200,
    *,
    done: str = "",
    problem: str | None = None,
    **values: object,
) -> Response:
    """Return a page that must not be cached.

    done: the key of the message about a successfully submitted form. problem: an error to display.
    """
    text = (
        _templates()
        .get_template(template)
        .render(
            session=session,
            title=_ERROR_TITLES.get(status, "Request failed"),
            notice=_NOTICES.get(done),
            problem=problem,
            **values,
        )
    )
    return HTMLResponse(text, status, {"Cache-Control": "no-store"})


def render_error(
    template: str, session: Session | None, error: DatapilotError, **values: Any
) -> Response:
    """Return a form's page with the error that submitting the form caused."""
    return render_page(template, session, status_of(error), problem=str(error), **values)


def format_web_link(url: str | None) -> str | None:
    """Return an HTTP(S) URL without user-info, or None for any other text."""
    try:
        parts = urlsplit(url or "")
        host = parts.hostname
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("datapilot_defer.instance.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["timestamp"] = format_timestamp
    templates.filters["time_ago"] = format_time_ago
    templates.filters["size"] = format_size
    templates.filters["web_link"] = format_web_link
    return templates
