"""A config that is read again from where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.config.source import Source
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def test_file_variables_and_flags_are_read_again_in_their_order(tmp_path: Path) -> None:
    file, key = tmp_path / "gateway.yaml", tmp_path / "key"
    file.write_text("cache: {ttl_s: 5}\nserver: {port: 1}\n")
    key.write_text("sk-old\n")
    source = Source(
        file, {"GATEWAY_UPSTREAMS__OPENAI__API_KEY_FILE": str(key)}, {"server.port": "2"}
    )
    before = source.load().config

    file.write_text("cache: {ttl_s: 6}\nserver: {port: 3}\n")
    key.write_text("sk-new\n")
    after = source.load_again().config

    def told(config: object) -> tuple[object, ...]:
        openai = config.upstreams["openai"]  # type: ignore[attr-defined]
        return config.cache.ttl_s, config.server.port, openai.api_key.get_secret_value()  # type: ignore[attr-defined]

    assert ((5, 2, "sk-old"), (6, 2, "sk-new")) == (told(before), told(after))
    assert (file, key) == source.files()


@pytest.mark.parametrize("text", ["", "  \n\n", "\ufeff"])
def test_a_file_that_is_empty_now_is_half_a_write(tmp_path: Path, text: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(text)

    assert Source(file).is_blank
    assert Source(file).load().config.cache.ttl_s == 3600
    with pytest.raises(ConfigError) as caught:
        Source(file).load_again()
    (fault,) = caught.value.faults
    assert (str(file), "is empty") == (fault.path, fault.problem)


def test_an_empty_mapping_says_that_every_default_is_meant(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("{}")

    assert Source(file).load_again().config.cache.ttl_s == 3600


def test_a_source_shows_no_environment() -> None:
    assert "sk-secret" not in repr(
        Source(None, {"GATEWAY_UPSTREAMS__OPENAI__API_KEY": "sk-secret"})
    )


def test_the_files_of_warm_ups_are_looked_at_as_well(tmp_path: Path) -> None:
    body, file = tmp_path / "prompt.json", tmp_path / "gateway.yaml"
    body.write_text('{"model": "m", "messages": []}')
    file.write_text(
        f"upstreams: {{openai: {{api_key: sk-1}}}}\nwarm: [{{upstream: openai, file: {body}}}]\n"
    )
    source = Source(file)

    assert (file, body) == source.files(source.load().config)
