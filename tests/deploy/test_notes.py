"""What Helm says at the end of an installation."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.deploy.helm import CHART, Helm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Notes = Callable[..., str]

SHARED = "--set=secrets.store__url.existingSecret=redis,secrets.store__url.key=url"


@pytest.fixture
def notes(helm: Helm, tmp_path: Path) -> Notes:
    """The notes for some arguments. (`helm template` leaves them out: they are rendered as a manifest.)"""
    chart = tmp_path / "warmgate"
    shutil.copytree(CHART, chart)
    text = (chart / "templates/NOTES.txt").read_text(encoding="utf-8")
    (chart / "templates/_notes.tpl").write_text(
        '{{- define "notes" }}' + text + "{{ end }}", encoding="utf-8"
    )
    (chart / "templates/notes.yaml").write_text(
        'kind: Notes\ntext: {{ include "notes" . | quote }}\n', encoding="utf-8"
    )

    def rendered(*arguments: str | Path) -> str:
        found: str = helm.one("Notes", *arguments, chart=chart)["text"]
        assert "<no value>" not in found
        return found

    return rendered


def test_they_say_what_apps_need_and_how_to_look(notes: Notes) -> None:
    said = notes("--set=config.admin.port=9999")
    assert "OPENAI_BASE_URL=http://rel-warmgate.ns:8080/v1" in said
    assert "helm test rel --namespace ns" in said
    assert "kubectl exec --namespace ns deployment/rel-warmgate -- gateway doctor" in said
    assert "deployment/rel-warmgate 9999" in said


@pytest.mark.parametrize(
    ("arguments", "is_warned"),
    [
        ((), True),
        (("--set=autoscaling.enabled=true",), True),
        (("--set=config.store.url=sqlite:////tmp/cache.sqlite",), True),
        (("--set=autoscaling.enabled=true,autoscaling.minReplicas=1",), True),
        (("--set=extraEnv[0].name=REDIS_URL,extraEnv[0].valueFrom.secretKeyRef.key=url",), False),
        (("--set=replicaCount=1",), False),
        ((SHARED,), False),
        (("--set=config.store.url=rediss+cluster://a:1",), False),
    ],
)
def test_they_warn_of_caches_that_nobody_shares(
    notes: Notes, arguments: tuple[str, ...], is_warned: bool
) -> None:
    said = notes(*arguments)
    assert ("a cache of its own" in said) is is_warned
    assert ("a purge" in said) is is_warned


@pytest.mark.parametrize(
    ("arguments", "is_warned"),
    [
        ((), False),
        (("--set=preStopSleepSeconds=0",), True),
        (("--set=preStopSleepSeconds=0,config.server.drain_delay_s=10",), False),
    ],
)
def test_they_warn_where_nothing_waits_for_the_service(
    notes: Notes, arguments: tuple[str, ...], is_warned: bool
) -> None:
    assert ("will find nobody" in notes(*arguments)) is is_warned


def test_a_sidecars_say_what_is_to_be_done(notes: Notes) -> None:
    assert 'include "warmgate.sidecar" .Subcharts.warmgate' in notes("--set=mode=sidecar")
    said = notes("--set=mode=sidecar,sidecar.app.image=chat:1.0.0")
    assert "chat:1.0.0 runs with Warmgate" in said
