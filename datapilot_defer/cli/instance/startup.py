"""Startup of `serve`: creation of the first instance, and the message with the URL."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer.cli.instance.admin_token import FirstToken
from datapilot_defer.cli.instance.options import command_line_actor, format_token_command
from datapilot_defer.cli.output import Output

if TYPE_CHECKING:
    from datapilot_defer.storage import Storage


@dataclass(frozen=True)
class Startup:
    """The startup of a server.

    instance_name: the instance to create if it is missing. None creates "main" in an empty data
    directory.
    """

    output: Output
    storage: Storage
    data: Path
    instance_name: str | None
    first_token: FirstToken

    def announce(self, url: str) -> None:
        """Print the URL, after creating the first instance or registering the token if necessary.

        Warns about instances without a valid admin token. Raises UsageError or Unavailable. If the
        result cannot be printed, the first instance and its token are not created.
        """
        if not self._create_first_instance(url):
            self._register_token_in_file()
            self.output.print_result({"url": url}, self._format_message(url))
        self._warn_about_missing_tokens()

    def _create_first_instance(self, url: str) -> bool:
        """Create the named instance, or "main" in an empty data directory, unless it exists.

        Returns whether it was created.
        """
        from datapilot_defer.instance.services import instances

        if self.instance_name is None and instances.list_instance_names(self.storage):
            return False
        name = self.instance_name or "main"
        token = self.first_token.token
        with instances.creating_instance(
            self.storage, name, token=token, actor=command_line_actor()
        ) as is_new:
            if is_new:
                self.first_token.save()
                result = {"url": url, "instance_name": name, **self.first_token.result}
                self.output.shows_tokens = True
                self.output.print_result(result, self._format_first_message(url, name))
        return is_new

    def _register_token_in_file(self) -> None:
        """Make the token in --admin-token-file an admin token, unless it is already registered.

        Warns if it is registered, but is not a valid admin token.
        """
        from datapilot_defer.instance.services import instances

        if not self.first_token.is_in_file:
            return
        record = instances.register_admin_token(
            self.storage, self.instance_name, self.first_token.token, actor=command_line_actor()
        )
        if not record.is_valid or not record.permits("admin"):
            self.output.warn(
                f"the token in {self.first_token.file} is not a valid admin token. It was "
                "revoked, has expired, or does not have the scope admin."
            )

    def _warn_about_missing_tokens(self) -> None:
        from datapilot_defer.instance.services import instances

        for name in instances.list_names_without_admin(self.storage):
            command = format_token_command(self.data, name)
            self.output.warn(
                f"instance {name} has no valid admin token. To create one, run `{command}`."
            )

    def _format_message(self, url: str) -> str:
        from datapilot_defer.instance.services import instances

        names = instances.list_instance_names(self.storage)
        label = "Instance"
        if len(names) > 1:
            label = "Instances"
        return f"Serving at {url}\n{label}: {', '.join(names)}"

    def _format_first_message(self, url: str, name: str) -> str:
        lines = [
            f"Serving at {url}",
            f"Created instance {name}. {self.first_token.description}",
            "Sign in at this URL with the token, or run these commands in your dbt project:",
            f"  {_format_assignment('ALTIMATE_URL', _quote(url))}",
            f"  {_format_assignment('ALTIMATE_INSTANCE_NAME', _quote(name))}",
            f"  {_format_assignment('ALTIMATE_API_KEY', self._format_token_value())}",
            "  datapilot dbt integrations create --name my_project --environment PROD",
            "  datapilot dbt onboard --integration-name my_project --environment PROD",
        ]
        return "\n".join(lines)

    def _format_token_value(self) -> str:
        """Return the shell expression for the token."""
        file = self.first_token.file
        if file is None:
            return _quote(self.first_token.token)
        if os.name == "nt":
            return f"(Get-Content {_quote(str(file))})"
        return f'"$(cat {_quote(str(file))})"'


def _format_assignment(name: str, value: str) -> str:
    if os.name == "nt":
        return f"$env:{name}={value}"
    return f"export {name}={value}"


def _quote(text: str) -> str:
    """Quote a text for PowerShell on Windows, or for a POSIX shell elsewhere."""
    if os.name == "nt":
        escaped = text.replace("'", "''")
        return f"'{escaped}'"
    return shlex.quote(text)
