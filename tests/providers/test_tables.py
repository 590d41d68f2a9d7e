from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, get_type_hints

import pytest
from anthropic.types import message_create_params
from openai.types.chat import completion_create_params

from gateway.providers import registry
from gateway.providers.anthropic import ANTHROPIC
from gateway.providers.base import ApiRules, Default, Provider, Rule
from gateway.providers.openai import OPENAI
from gateway.providers.registry import PROVIDERS
from gateway.providers.unknown import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

APIS = [
    pytest.param(api, id=f"{provider.name} {name}")
    for provider in PROVIDERS.values()
    for name, api in provider.apis.items()
]


def rules_of(api: ApiRules) -> Iterator[tuple[str, Rule]]:
    for table in (api.excluded, api.scalars, api.markers):
        yield from table.items()
    for owner, members in api.excluded_members.items():
        yield from ((f"{owner}.{name}", rule) for name, rule in members.items())
    yield from ((name, default.rule) for name, default in api.defaults.items())
    for name in ("fold_tools", "string_is_text_part", "rename_tool_ids", "stream_usage"):
        if (rule := getattr(api, name)) is not None:
            yield name, rule


@pytest.mark.parametrize("api", APIS)
def test_every_line_of_every_table_has_its_reason_and_its_source(api: ApiRules) -> None:
    lines = list(rules_of(api))

    assert lines
    for name, rule in lines:
        assert len(rule.reason) > 10, name
        # A source says where and which edition: an SDK's version or a date.
        assert re.search(r"\d+\.\d+|20\d\d-\d\d", rule.source), name


@pytest.mark.parametrize("api", APIS)
def test_no_member_stands_in_two_tables_that_contradict_each_other(api: ApiRules) -> None:
    assert not api.excluded.keys() & (api.scalars.keys() | api.defaults.keys())
    assert not api.excluded.keys() & api.excluded_members.keys()
    assert not {"messages", "tools", "system", "model"} & api.excluded.keys()


@pytest.mark.parametrize("api", APIS)
def test_what_thinks_is_never_called_plain_by_an_empty_prefix(api: ApiRules) -> None:
    assert "" not in api.plain_models
    assert isinstance(api.plain_models, tuple)


@pytest.mark.parametrize("api", UNKNOWN.apis.values(), ids=UNKNOWN.apis)
def test_the_unknown_leaves_out_the_form_alone(api: ApiRules) -> None:
    assert api.excluded.keys() <= {"stream", "stream_options"}
    assert ApiRules(excluded=api.excluded, scalars=api.scalars) == api, (
        "an unknown upstream gets no default, marker, renaming or folding"
    )


def test_the_unknown_knows_every_api_and_keys_every_header() -> None:
    known = {name for provider in PROVIDERS.values() for name in provider.apis}

    assert known == set(UNKNOWN.apis)
    assert UNKNOWN.header_prefixes is None


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda p: p.name)
def test_header_tables_are_spelled_as_headers_arrive(provider: Provider) -> None:
    for name in (*(provider.header_prefixes or ()), *provider.header_sets):
        assert name == name.lower()
    assert provider.header_prefixes is None or all(provider.header_prefixes)


@pytest.mark.parametrize(
    ("expected", "name", "host"),
    [
        (OPENAI, None, "api.openai.com"),
        (OPENAI, None, "API.OpenAI.com"),
        (OPENAI, "openai", "localhost"),
        (ANTHROPIC, None, "api.anthropic.com"),
        (UNKNOWN, None, "localhost"),
        (UNKNOWN, None, ""),
        (UNKNOWN, None, "api.openai.com.evil.example"),
        (UNKNOWN, None, "xapi.openai.com"),
        (UNKNOWN, None, "openai.com"),
        (UNKNOWN, "unknown", "api.openai.com"),
    ],
)
def test_a_provider_is_known_by_name_or_by_its_own_host_only(
    expected: Provider, name: str | None, host: str
) -> None:
    assert expected is registry.resolve(name, host)


def test_an_api_that_a_provider_does_not_document_gets_the_careful_rules() -> None:
    for provider in PROVIDERS.values():
        for api in UNKNOWN.apis:
            assert provider.apis.get(api, UNKNOWN.apis[api]) is registry.rules(provider, api)


def test_no_host_belongs_to_two_providers() -> None:
    hosts = [host for provider in PROVIDERS.values() for host in provider.hosts]

    assert len(hosts) == len(set(hosts))


# --- the SDKs know no field that nobody decided on ----------------------------------------------

# Keyed exactly as sent: what each is, and why it has no line in a table.
OPENAI_KEYED = {
    "audio": "changes the answer",
    "function_call": "the old tool_choice",
    "functions": "prompt: schemas are rendered as spelled",
    "messages": "the prompt, with rules of its own",
    "metadata": "the answer may echo it",
    "moderation": "adds results to the answer, and may block it",
    "prediction": "prompt-like text; changes usage",
    "response_format": "holds a schema, rendered as spelled",
    "tool_choice": "changes the answer",
    "tools": "the prompt, with rules of its own",
    "web_search_options": "passed, never cached",
}
ANTHROPIC_KEYED = {
    "container": "passed, never cached",
    "diagnostics": "the answer explains its cache miss against the message named here",
    "inference_geo": "the answer echoes it",
    "messages": "the prompt, with rules of its own",
    "output_config": "holds a schema, rendered as spelled",
    "system": "the prompt, with rules of its own",
    "tools": "the prompt, with rules of its own",
    "user_profile_id": "a header, keyed by its prefix",
    "workspace_id": "a header, keyed by its prefix",
}


def fields(*types: Any) -> set[str]:
    return {name for each in types for name in get_type_hints(each)}


@pytest.mark.parametrize(
    ("api", "keyed", "known"),
    [
        pytest.param(
            OPENAI.apis["openai_chat"],
            OPENAI_KEYED,
            fields(
                completion_create_params.CompletionCreateParamsNonStreaming,
                completion_create_params.CompletionCreateParamsStreaming,
            ),
            id="openai",
        ),
        pytest.param(
            ANTHROPIC.apis["anthropic_messages"],
            ANTHROPIC_KEYED,
            fields(
                message_create_params.MessageCreateParamsNonStreaming,
                message_create_params.MessageCreateParamsStreaming,
            ),
            id="anthropic",
        ),
    ],
)
def test_every_field_that_the_sdk_knows_was_decided_on(
    api: ApiRules, keyed: dict[str, str], known: set[str]
) -> None:
    decided = {*api.excluded, *api.excluded_members, *api.scalars, *api.defaults, *keyed}

    assert set() == known - decided
    assert keyed.keys() <= known
    assert not keyed.keys() & {*api.excluded, *api.scalars, *api.defaults}
    assert all(keyed.values())


def test_defaults_are_values_that_a_fold_can_recognise() -> None:
    for provider in PROVIDERS.values():
        for api in provider.apis.values():
            for default in api.defaults.values():
                assert isinstance(default, Default)
                assert isinstance(default.value, int | bool)
