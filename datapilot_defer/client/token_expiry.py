"""The expiry of a token, and the warning before it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from datapilot_defer.formatting import plural

WARNING_PERIOD = timedelta(days=14)
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)


def parse_expiry(content: object) -> datetime | None:
    """Return when the token expires, in UTC, from the response to the check of the credentials.

    Returns None if it never expires, or if the instance reports no valid timestamp.
    """
    if not isinstance(content, dict):
        return None
    timestamp = content.get("token_expires_at")
    if not isinstance(timestamp, str):
        return None
    try:
        moment = datetime.fromisoformat(timestamp)
        if moment.tzinfo is None:
            return moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def describe_expiry(expires_at: datetime | None, url: str) -> str | None:
    """Return the warning that a token of the instance at this URL expires soon.

    Returns None if it expires later than WARNING_PERIOD from now, or if `expires_at` is None.
    """
    if expires_at is None:
        return None
    remaining = expires_at - datetime.now(UTC)
    if remaining > WARNING_PERIOD:
        return None
    return (
        f"the token expires {_format_remaining(remaining)}, on {expires_at:%Y-%m-%d}. "
        f"Create a new one at {url}/settings/tokens or with `datapilot instance token "
        "create`"
    )


def _format_remaining(remaining: timedelta) -> str:
    if remaining >= _DAY:
        return f"in {plural(remaining // _DAY, 'day')}"
    if remaining >= _HOUR:
        return f"in {plural(remaining // _HOUR, 'hour')}"
    return "within the hour"
