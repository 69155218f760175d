"""doctor names each problem, and its exit code is that of the first one."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from tests.support.commands import access, datapilot
from tests.support.instances import RunningInstance
from tests.support.protocol_server import ProtocolServer, Reply


def steps(outcome_json: dict[str, list[dict[str, object]]]) -> dict[str, object]:
    """Each step's name and whether it worked."""
    return {str(step["name"]): step["ok"] for step in outcome_json["steps"]}


def test_all_is_well_with_a_real_instance(instance: RunningInstance) -> None:
    made = datapilot(
        "dbt", "integrations", "create", "--name", "shop", "--json", env=access(instance)
    ).json["id"]
    done = datapilot("doctor", "--integration-id", made, "--json", env=access(instance))
    assert done.exit_code == 0, done.output
    assert all(steps(done.json).values())
    assert "takes connections" in done.stdout
    history = datapilot(
        "dbt", "integrations", "history", "--integration-id", made, "--json", env=access(instance)
    )
    assert history.json["history"] == []


def test_a_wrong_token_is_found_and_the_rest_is_still_tried(instance: RunningInstance) -> None:
    done = datapilot("doctor", "--json", env=access(instance, "wrong-token-0000"))
    assert done.exit_code == 3
    assert steps(done.json)["credentials"] is False
    assert steps(done.json)["TLS and clock"] is True
    assert "wrong-token-0000" not in done.output


def test_a_token_that_may_only_read_is_found(instance: RunningInstance) -> None:
    done = datapilot("doctor", env=access(instance, instance.new_token("read")))
    assert done.exit_code == 3
    assert "ok      credentials: accepted" in done.stdout
    assert "FAILED  permission" in done.stdout


def test_what_needs_an_instance_is_not_tried_without_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    done = datapilot(
        "doctor",
        env={"ALTIMATE_URL": url, "ALTIMATE_API_KEY": "t" * 8, "ALTIMATE_INSTANCE_NAME": "acme"},
    )
    assert done.exit_code == 5
    assert "connection refused" in done.stdout
    assert "-       credentials: not tried" in done.stdout


def test_a_name_that_nobody_knows_is_found_at_the_step_for_names() -> None:
    done = datapilot(
        *("doctor", "--json"),
        env={
            "ALTIMATE_URL": "https://nowhere.invalid",
            "ALTIMATE_API_KEY": "t",
            "ALTIMATE_INSTANCE_NAME": "acme",
        },
    )
    assert done.exit_code == 5
    assert steps(done.json)["DNS"] is False
    assert "nowhere.invalid can't be resolved" in done.stdout


def test_a_clock_that_is_wrong_is_found(hosted: ProtocolServer) -> None:
    yesterday = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    hosted.answers["GET /health"] = lambda _: Reply({"status": "ok"}, headers={"Date": yesterday})
    done = datapilot("doctor", env=hosted.access)
    assert done.exit_code == 5
    assert "clocks are 864" in done.stdout


def test_an_upload_host_that_is_blocked_is_found(hosted: ProtocolServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        blocked = f"http://127.0.0.1:{listener.getsockname()[1]}/bucket?signature=s3cret"
    hosted.answers["GET /dbt/v1/signed_url"] = lambda _: Reply(
        {"url": blocked, "dbt_core_integration_file_id": 1}
    )
    done = datapilot("doctor", "--integration-id", 7, env=hosted.access)
    assert done.exit_code == 5
    assert "FAILED  upload host: 127.0.0.1, where uploads go, can't be reached" in done.stdout
    assert "s3cret" not in done.output


def test_a_proxy_is_named_without_its_password(hosted: ProtocolServer) -> None:
    env = {**hosted.access, "HTTP_PROXY": "http://user:pa55word@127.0.0.1:9", "NO_PROXY": ""}
    done = datapilot("doctor", env=env)
    assert done.exit_code == 5
    assert "127.0.0.1:9 is used" in done.stdout
    assert "pa55word" not in done.output
