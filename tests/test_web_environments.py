"""The page of an environment: commands, history, downloads and upload checks."""

from __future__ import annotations

import shlex

import pytest

from datapilot_defer.storage import integrations
from tests.support.instance_calls import (
    call,
    catalog,
    fetch,
    make_integration,
    manifest,
    onboard,
    upload,
    verify,
)
from tests.support.instances import RunningInstance
from tests.support.visits import INTEGRATIONS, Visit, text_of

EARLY = "2026-11-22T10:00:00Z"
LATE = "2026-11-22T11:00:00Z"
RIGHT_TO_LEFT_OVERRIDE = "\u202e"


@pytest.fixture
def admin(instance: RunningInstance) -> Visit:
    return Visit(instance, instance.token)


@pytest.fixture
def path(instance: RunningInstance) -> str:
    return f"{INTEGRATIONS}/{make_integration(instance)}/PROD"


def test_the_upload_command_has_the_documented_options_and_no_token(
    instance: RunningInstance, admin: Visit, path: str
) -> None:
    text = text_of(admin.get(path))
    assert "export ALTIMATE_API_KEY=…" in text
    command = (
        f"datapilot dbt onboard --backend-url {instance.url} --instance-name acme "
        "--integration-id 1 --environment PROD --manifest-path target/manifest.json"
    )
    assert command in text
    assert (
        f"datapilot dbt onboard --backend-url {instance.url} "
        '--token "$ALTIMATE_API_KEY" --instance-name acme --dbt_core_integration_id 1 '
        "--dbt_core_integration_environment PROD --manifest-path target/manifest.json"
    ) in text
    assert "--token" not in shlex.split(command)


def test_the_history_shows_provenance_changes_and_rejections(
    instance: RunningInstance, admin: Visit, path: str
) -> None:
    onboard(instance, 1, manifest("a", "b", at=EARLY))
    file_id = upload(instance, 1, manifest("b", "c", at=LATE))
    verify(
        instance,
        file_id,
        commit="0123456789abcdef",
        branch="<b>main</b>",
        build_url="javascript:alert(1)",
    )
    verify(instance, upload(instance, 1, manifest(project="other")))
    page = admin.get(path)
    assert ">0123456789</bdi>" in page.text
    assert "<bdi>&lt;b&gt;main&lt;/b&gt;</bdi>" in page.text
    assert "javascript:" not in page.text
    assert '<span class="plus">+1</span>' in page.text
    assert "belongs to the dbt project" in page.text
    assert '<span class="tag bad">rejected</span>' in page.text


def test_the_history_filters_by_kind(instance: RunningInstance, admin: Visit, path: str) -> None:
    first = onboard(instance, 1, manifest(at=EARLY))
    other = onboard(instance, 1, catalog(), kind="catalog")
    onboard(instance, 1, manifest(at=LATE))
    admin.send(f"{path}/uploads/{first}/restore")
    manifests = admin.get(f"{path}?kind=manifest")
    assert f"{path}/uploads/{first}" in manifests.text
    assert f"{path}/uploads/{other}" not in manifests.text
    assert f"upload {first} restored by first" in text_of(manifests)
    catalogs = admin.get(f"{path}?kind=catalog")
    assert f"{path}/uploads/{other}" in catalogs.text
    assert "restored by" not in text_of(catalogs)
    # The details of the current manifest are still shown.
    assert "No manifest has been uploaded yet." not in catalogs.text
    assert "No sources.json has been uploaded yet." in text_of(admin.get(f"{path}?kind=sources"))


def test_a_file_is_downloaded_by_a_signed_url(
    instance: RunningInstance, admin: Visit, path: str
) -> None:
    file_id = onboard(instance, 1, manifest())
    answer = admin.get(f"{path}/files/{file_id}")
    assert answer.content == manifest()
    assert answer.headers["content-disposition"] == 'attachment; filename="manifest.json"'


def test_a_token_for_uploads_cannot_download(instance: RunningInstance, path: str) -> None:
    file_id = onboard(instance, 1, manifest())
    uploader = Visit(instance, instance.new_token("upload"))
    assert uploader.get(f"{path}/files/{file_id}").status_code == 403
    assert "Download" not in uploader.get(path).text


def test_an_upload_check_is_turned_off_and_on(
    instance: RunningInstance, admin: Visit, path: str
) -> None:
    onboard(instance, 1, manifest(at=LATE))
    older = upload(instance, 1, manifest(at=EARLY))
    assert verify(instance, older).status_code == 409
    changed = admin.send(f"{path}/checks", enabled=["smaller", "project", "relations"])
    assert "The upload checks were changed." in text_of(changed)
    assert "(older turned off)" in text_of(changed)
    assert 'value="older" >' in changed.text
    assert 'value="smaller" checked>' in changed.text
    assert verify(instance, upload(instance, 1, manifest(at=EARLY))).status_code == 200
    changed = admin.send(f"{path}/checks", enabled=["older", "smaller", "project", "relations"])
    assert "turned off" not in text_of(changed)


def test_all_upload_checks_can_be_turned_off(admin: Visit, path: str) -> None:
    changed = admin.send(f"{path}/checks")
    assert "(older, project, relations, smaller turned off)" in text_of(changed)


def test_an_unknown_upload_check_is_rejected(admin: Visit, path: str) -> None:
    assert admin.send(f"{path}/checks", enabled=["sometimes"]).status_code == 422
    assert "turned off" not in text_of(admin.get(path))


def test_the_form_of_the_checks_leads_back_to_its_page_after_sign_in(
    instance: RunningInstance, admin: Visit, path: str
) -> None:
    assert admin.get(f"{path}/checks").url == f"{instance.url}{path}"


def test_a_reader_sees_the_checks_and_no_forms(instance: RunningInstance, path: str) -> None:
    first = onboard(instance, 1, manifest(at=EARLY))
    onboard(instance, 1, manifest(at=LATE))
    reader = Visit(instance, instance.new_token("read"))
    page = reader.get(path)
    assert "Reject a manifest of another dbt project." in text_of(page)
    assert 'type="checkbox"' not in page.text
    assert "Restore" not in page.text
    assert "Integration settings" not in page.text
    assert reader.send(f"{path}/checks").status_code == 403
    assert reader.get(f"{path}/uploads/{first}/restore").status_code == 403
    assert reader.send(f"{path}/uploads/{first}/restore").status_code == 403
    assert fetch(instance, 1).json()["dbt_core_integration_file_id"] != first


def test_names_from_outside_are_isolated_from_the_text_around_them(
    instance: RunningInstance, admin: Visit
) -> None:
    """A right-to-left override in an older name would reverse the rest of the line."""
    name = f"shop{RIGHT_TO_LEFT_OVERRIDE}drow"
    with instance.storage.database.write() as connection:
        integration = integrations.create_integration(
            connection, 1, name=name, integration_type="dbt_core"
        )
        integrations.add_environment(connection, integration.id, "PROD")
    for path in (INTEGRATIONS, f"{INTEGRATIONS}/1", f"{INTEGRATIONS}/1/PROD"):
        page = admin.get(path).text
        assert f"<bdi>{name}</bdi>" in page
    assert call(instance, "GET", "dbt/v1/project_integrations").status_code == 200
