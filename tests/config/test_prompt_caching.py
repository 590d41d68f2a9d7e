"""What is refused of `prompt_cache` and `warm`, and in which words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gateway.config import load
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

WARM = {"upstream": "vllm", "body": {"model": "m", "messages": []}}
VLLM = {"vllm": {"base_url": "http://gpu:8000/v1", "provider": "vllm"}}


@pytest.fixture
def loaded(tmp_path: Path) -> Any:
    def load_tree(tree: dict[str, Any]) -> Any:
        file = tmp_path / "warmgate.yaml"
        file.write_text(yaml.safe_dump(tree))
        return load(file, {})

    return load_tree


def faults(loaded: Any, tree: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as refused:
        loaded(tree)
    return [(fault.path, fault.problem) for fault in refused.value.faults]


def test_a_bare_off_in_yaml_is_a_mode_of_markers_not_a_boolean(loaded: Any) -> None:
    tree = {"prompt_cache": {"markers": False}, "routes": [{"prompt_cache": {"markers": "strip"}}]}

    config = loaded(tree)

    assert config.prompt_cache.markers == "off"
    assert config.routes[0].prompt_cache.markers == "strip"


def test_a_warm_up_for_a_paid_upstream_without_a_key_is_named_at_start(loaded: Any) -> None:
    found = faults(loaded, {"warm": [{**WARM, "upstream": "anthropic"}]})

    assert [path for path, _ in found] == ["warm[0].upstream"]
    assert "no api_key, and a client's is never used" in found[0][1]


def test_a_key_makes_a_warm_up_good(loaded: Any) -> None:
    tree = {
        "upstreams": {"anthropic": {"api_key": "sk-configured"}},
        "warm": [{**WARM, "upstream": "anthropic", "path": "/v1/messages"}],
    }
    assert loaded(tree).warm[0].request()["model"] == "m"


def test_an_engine_of_ones_own_needs_no_key(loaded: Any) -> None:
    assert loaded({"upstreams": VLLM, "warm": [WARM]}).warm[0].upstream == "vllm"


@pytest.mark.parametrize(
    ("warm", "path", "problem"),
    [
        ({"upstream": "vllm"}, "warm[0]", "needs one of body and file"),
        ({**WARM, "file": "x.json"}, "warm[0]", "needs one of body and file"),
        ({**WARM, "upstream": "elsewhere"}, "warm[0].upstream", "not an upstream"),
        ({"upstream": "vllm", "file": "/no/such/file.json"}, "warm[0].file", "can't be read"),
        ({"upstream": "vllm", "body": {"messages": []}}, "warm[0].body", "names no model"),
        ({**WARM, "name": "A name"}, "warm[0].name", "not a name"),
        ({**WARM, "path": "/v1/embeddings"}, "warm[0].path", "is not one of"),
    ],
)
def test_a_warm_up_that_can_never_work_is_a_fault(
    loaded: Any, warm: dict[str, Any], path: str, problem: str
) -> None:
    found = faults(loaded, {"upstreams": VLLM, "warm": [warm]})

    assert [each for each in found if each[0] == path and problem in each[1]]


def test_a_warm_up_can_stand_in_a_file_of_its_own(loaded: Any, tmp_path: Path) -> None:
    file = tmp_path / "prompt.json"
    file.write_text('{"model": "m", "messages": []}')

    config = loaded({"upstreams": VLLM, "warm": [{"upstream": "vllm", "file": str(file)}]})

    assert config.warm[0].request() == {"model": "m", "messages": []}


@pytest.mark.parametrize("text", ["[]", "{}", "not json", '{"model": 5}'])
def test_a_file_that_holds_no_request_is_a_fault(loaded: Any, tmp_path: Path, text: str) -> None:
    file = tmp_path / "prompt.json"
    file.write_text(text)

    found = faults(loaded, {"upstreams": VLLM, "warm": [{"upstream": "vllm", "file": str(file)}]})

    assert found[0][0] == "warm[0].file"
