"""Commands for a POSIX shell and settings that users copy from a page."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Snippets:
    """Text to copy for one environment. The commands read the token from ALTIMATE_API_KEY."""

    instance_name: str
    base_url: str
    integration_id: int
    environment: str

    @property
    def upload(self) -> str:
        """Return the datapilot-defer command that onboards a manifest to the environment."""
        return (
            f"datapilot dbt onboard --backend-url {shlex.quote(self.base_url)} "
            f"--instance-name {self.instance_name} --integration-id {self.integration_id} "
            f"--environment {shlex.quote(self.environment)} --manifest-path target/manifest.json"
        )

    @property
    def altimate_upload(self) -> str:
        """Return the altimate-datapilot-cli command that onboards a manifest to the environment.

        That CLI requires the token as an option.
        """
        return (
            f"datapilot dbt onboard --backend-url {shlex.quote(self.base_url)} "
            f'--token "$ALTIMATE_API_KEY" --instance-name {self.instance_name} '
            f"--dbt_core_integration_id {self.integration_id} "
            f"--dbt_core_integration_environment {shlex.quote(self.environment)} "
            "--manifest-path target/manifest.json"
        )

    @property
    def defer(self) -> str:
        """Return the commands that defer to the environment.

        They export the URL and the instance name, because these must come from the same source as
        the token.
        """
        return (
            f"export ALTIMATE_URL={shlex.quote(self.base_url)} "
            f"ALTIMATE_INSTANCE_NAME={self.instance_name}\n"
            f"datapilot dbt defer enable --integration-id {self.integration_id} "
            f"--environment {shlex.quote(self.environment)}\n"
            "datapilot dbt defer run build --select my_model"
        )

    @property
    def editor_settings(self) -> str:
        """Return the settings of the VS Code extension "Power User for dbt"."""
        project_settings = {
            "deferToProduction": True,
            "favorState": False,
            "manifestPathType": "remote",
            "dbtCoreIntegrationId": self.integration_id,
        }
        settings = {
            "dbt.altimateUrl": self.base_url,
            "dbt.altimateInstanceName": self.instance_name,
            "dbt.deferConfigPerProject": {"": project_settings},
        }
        return json.dumps(settings, indent=2)
