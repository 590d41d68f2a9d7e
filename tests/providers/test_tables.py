from __future__ import annotations

import dataclasses
import re
from collections import Counter
from typing import Any, get_args, get_type_hints

import pytest
from anthropic.types import message_create_params
from openai.types import completion_create_params as completion_params
from openai.types import embedding_create_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params

from gateway.config.kinds import ProviderName
from gateway.core.identity import CREDENTIALS
from gateway.providers import registry
from gateway.providers.anthropic import ANTHROPIC
from gateway.providers.azure import AZURE
from gateway.providers.base import ApiRules, Default, Provider
from gateway.providers.openai import OPENAI
from gateway.providers.openrouter import OPENROUTER
from gateway.providers.registry import PROVIDERS
from gateway.providers.unknown import UNKNOWN
from gateway.providers.vllm import VLLM
from tests.providers import table_page
from tests.providers.table_page import lines

APIS = [
    pytest.param(api, id=f"{provider.name} {name}")
    for provider in PROVIDERS.values()
    for name, api in provider.apis.items()
]


@pytest.mark.parametrize("api", APIS)
def test_every_line_of_every_table_has_its_reason_and_its_source(api: ApiRules) -> None:
    all_lines = list(lines(api))

    assert all_lines
    for name, _, rule in all_lines:
        assert len(rule.reason) > 10, name
        # A source says where and which edition: an SDK's version or a date.
        assert re.search(r"\d+\.\d+|20\d\d-\d\d", rule.source), name


@pytest.mark.parametrize("api", APIS)
def test_no_member_stands_in_two_tables_that_contradict_each_other(api: ApiRules) -> None:
    kinds = Counter(
        name
        for table in (api.keyed, api.excluded, api.scalars, api.excluded_members)
        for name in table
    )

    assert [name for name, count in kinds.items() if count > 1] == []
    assert not api.defaults.keys() & (api.keyed.keys() | api.excluded.keys())
    assert not {"messages", "input", "prompt", "tools", "system", "model"} & api.excluded.keys()


@pytest.mark.parametrize("api", APIS)
def test_what_thinks_is_never_called_plain_by_an_empty_prefix(api: ApiRules) -> None:
    assert "" not in api.plain_models
    assert isinstance(api.plain_models, tuple)


@pytest.mark.parametrize("api", UNKNOWN.apis.values(), ids=UNKNOWN.apis)
def test_the_unknown_leaves_out_the_form_alone(api: ApiRules) -> None:
    assert api.excluded.keys() <= {"stream", "stream_options"}
    assert ApiRules(keyed=api.keyed, excluded=api.excluded, scalars=api.scalars) == api, (
        "an unknown upstream gets no default, marker, renaming or folding"
    )


def test_the_unknown_knows_every_api_and_keys_every_header() -> None:
    known = {name for provider in PROVIDERS.values() for name in provider.apis}

    assert known == set(UNKNOWN.apis)
    assert UNKNOWN.header_prefixes is None


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda p: p.name)
def test_header_tables_are_spelled_as_headers_arrive(provider: Provider) -> None:
    for name in (
        *(provider.header_prefixes or ()),
        *provider.header_sets,
        *provider.headers_excluded,
        provider.credential_header,
    ):
        assert name == name.lower()
    assert provider.header_prefixes is None or all(provider.header_prefixes)
    assert not provider.header_sets & provider.headers_excluded.keys()
    assert provider.credential_header in CREDENTIALS
    assert all(end.startswith(".") for end in provider.host_suffixes)


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
        (AZURE, None, "my-resource.openai.azure.com"),
        (AZURE, None, "My-Resource.OpenAI.Azure.com"),
        (AZURE, None, "hub.services.ai.azure.com"),
        (AZURE, None, "x.cognitiveservices.azure.com"),
        (AZURE, "azure", "apim.example"),
        (UNKNOWN, None, "openai.azure.com"),
        (UNKNOWN, None, "xopenai.azure.com"),
        (UNKNOWN, None, "my.openai.azure.com.evil.example"),
        (OPENROUTER, None, "openrouter.ai"),
        (UNKNOWN, None, "eu.openrouter.ai"),
        (VLLM, "vllm", "gpu"),
        (UNKNOWN, None, "vllm"),
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
    ends = [end for provider in PROVIDERS.values() for end in provider.host_suffixes]

    assert len(hosts) == len(set(hosts))
    for host in [*hosts, *(f"x{end}" for end in ends)]:
        assert len([p for p in PROVIDERS.values() if p.serves(host)]) == 1, host


def test_every_provider_can_be_named_in_the_config() -> None:
    assert list(get_args(ProviderName)) == list(PROVIDERS)


def test_only_the_authors_of_an_api_have_defaults_markers_and_renaming() -> None:
    for provider in PROVIDERS.values():
        for name, api in provider.apis.items():
            if provider.name not in {"openai", "anthropic"}:
                folds = (api.fold_tools, api.fold_schemas, api.string_is_text_part)
                assert [*folds, api.rename_tool_ids] == [None] * 4, (provider.name, name)
                assert [api.defaults, api.markers, api.plain_models] == [{}, {}, ()]


# --- the SDKs know no field that nobody decided on ----------------------------------------------


def fields(*types: Any) -> set[str]:
    return {name for each in types for name in get_type_hints(each)}


SDK_FIELDS = {
    "openai_chat": fields(
        chat_params.CompletionCreateParamsNonStreaming,
        chat_params.CompletionCreateParamsStreaming,
    ),
    "openai_completions": fields(
        completion_params.CompletionCreateParamsNonStreaming,
        completion_params.CompletionCreateParamsStreaming,
    ),
    "openai_embeddings": fields(embedding_create_params.EmbeddingCreateParams),
    "openai_responses": fields(
        response_create_params.ResponseCreateParamsNonStreaming,
        response_create_params.ResponseCreateParamsStreaming,
    ),
    "anthropic_messages": fields(
        message_create_params.MessageCreateParamsNonStreaming,
        message_create_params.MessageCreateParamsStreaming,
    ),
}
TABLES = [
    pytest.param(name, api, id=f"{provider.name} {name}")
    for provider in PROVIDERS.values()
    for name, api in provider.apis.items()
]
AUTHORS = [
    pytest.param(name, api, id=name)
    for provider in (OPENAI, ANTHROPIC)
    for name, api in provider.apis.items()
]


def decided(api: ApiRules) -> set[str]:
    """Every top-level member that a table says something of."""
    return {*api.keyed, *api.excluded, *api.excluded_members, *api.scalars}


def test_every_api_has_the_types_of_its_sdk() -> None:
    assert SDK_FIELDS.keys() == UNKNOWN.apis.keys()
    assert all(len(known) > 4 and "model" in known for known in SDK_FIELDS.values())


@pytest.mark.parametrize(("name", "api"), TABLES)
def test_every_field_that_the_sdk_knows_was_decided_on(name: str, api: ApiRules) -> None:
    assert set() == SDK_FIELDS[name] - decided(api)


@pytest.mark.parametrize(("name", "api"), AUTHORS)
def test_a_line_about_a_field_that_the_sdk_does_not_know_says_where_it_is_from(
    name: str, api: ApiRules
) -> None:
    current = {rule.source for line, _, rule in lines(api) if line in SDK_FIELDS[name]}
    for line, kind, rule in lines(api):
        if kind in {"KEYED", "SCALAR", "EXCLUDED"} and line.split(".")[0] not in SDK_FIELDS[name]:
            assert rule.source not in current, line


def test_a_new_field_of_an_sdk_is_found_in_every_table() -> None:
    for provider in PROVIDERS.values():
        for name, api in provider.apis.items():
            assert {"a_field_of_tomorrow"} == {*SDK_FIELDS[name], "a_field_of_tomorrow"} - decided(
                api
            )


# --- the reference page ---------------------------------------------------------------------------


def test_the_page_says_what_the_tables_say() -> None:
    assert table_page.rendered() == table_page.PAGE.read_text(encoding="utf-8"), (
        "run .venv/bin/python -m tests.providers.table_page"
    )


@pytest.mark.parametrize(("name", "api"), TABLES)
def test_every_table_reaches_the_page(name: str, api: ApiRules) -> None:
    shown = {line.member for line in lines(api)}

    assert {*api.keyed, *api.excluded, *api.scalars, *api.markers} <= shown
    assert len(api.defaults) == sum(line.kind == "DEFAULT" for line in lines(api))
    rules = [f.name for f in dataclasses.fields(ApiRules) if str(f.type) == "Rule | None"]
    assert {*rules} == {*table_page.SWITCHES, "fold_text"}, name


def test_defaults_are_values_that_a_fold_can_recognise() -> None:
    for provider in PROVIDERS.values():
        for api in provider.apis.values():
            for default in api.defaults.values():
                assert isinstance(default, Default)
                assert isinstance(default.value, int | bool)
