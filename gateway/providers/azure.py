"""Azure OpenAI and Foundry: OpenAI's APIs for deployments of any model. Read 2026-11.

`model` is the name of a deployment, which its owner chose: it tells neither the model nor whether
that thinks, and Foundry deploys open models, whose templates may render tools and ids. So nothing
is folded or renamed because of what OpenAI documents of its own models, and no default is
eliminated. Filter results, which every answer states, are part of the answer and kept with it.
"""

from __future__ import annotations

from gateway.providers.base import Provider, Rule, sourced, spoken_elsewhere
from gateway.providers.openai import CHAT, CHAT_SCALARS
from gateway.providers.openai import STREAM_FORM as CHAT_FORM
from gateway.providers.openai_other import (
    COMPLETIONS,
    COMPLETIONS_FORM,
    COMPLETIONS_SCALARS,
    EMBEDDINGS,
    EMBEDDINGS_SCALARS,
)
from gateway.providers.openai_responses import RESPONSES, RESPONSES_SCALARS
from gateway.providers.openai_responses import STREAM_FORM as RESPONSES_FORM

_REFERENCE = "learn.microsoft.com/azure/ai-foundry/openai/latest, API version v1 (2026-11)"
_OLDER = "learn.microsoft.com/azure/ai-services/openai/reference, 2024-10-21 and previews"
_REFUSED = "github.com/vectorize-io/hindsight/issues/3518 (read 2026-11)"
_GUIDELINES = "Microsoft Azure REST API Guidelines, x-ms-client-request-id (2026-11)"

_END_USER = Rule("end-user id for abuse detection; never shown to the model", _OLDER)
_USAGE = Rule("stream_options.include_usage", _REFERENCE)

CHAT_HERE = spoken_elsewhere(
    CHAT,
    CHAT_SCALARS,
    CHAT_FORM,
    excluded={"user": _END_USER},
    keyed={
        **sourced(
            _OLDER,
            {
                "data_sources": "an index is searched for every answer: passed, never cached",
                "enhancements": "grounding and OCR by other services: changes the answer",
                "user_security_context": "about application and end user, and may raise an alert",
            },
        ),
        "prompt_cache_key": Rule(
            "refused by deployments of models that are not OpenAI's, where no answer may be met",
            _REFUSED,
        ),
    },
    stream_usage=_USAGE,
)

AZURE = Provider(
    name="azure",
    otel_name="azure.ai.openai",
    base_url=None,
    hosts=frozenset(),
    host_suffixes=(
        ".openai.azure.com",
        ".services.ai.azure.com",
        ".cognitiveservices.azure.com",
    ),
    apis={
        "openai_chat": CHAT_HERE,
        "openai_completions": spoken_elsewhere(
            COMPLETIONS,
            COMPLETIONS_SCALARS,
            COMPLETIONS_FORM,
            excluded={"user": _END_USER},
            stream_usage=_USAGE,
        ),
        "openai_embeddings": spoken_elsewhere(
            EMBEDDINGS, EMBEDDINGS_SCALARS, {}, excluded={"user": _END_USER}
        ),
        # Its answers state the request again, so only the form is left out, as at OpenAI.
        "openai_responses": spoken_elsewhere(RESPONSES, RESPONSES_SCALARS, RESPONSES_FORM),
    },
    # Which content filter holds (`x-policy-id`), which deployment (`azureml-model-deployment`),
    # what happens to unknown parameters (`extra-parameters`), and those of the models' authors.
    header_prefixes=(
        "openai-",
        "anthropic-",
        "x-policy-id",
        "x-ms-",
        "azureml-",
        "extra-parameters",
    ),
    header_sets=frozenset({"openai-beta", "anthropic-beta"}),
    headers_excluded=sourced(
        _GUIDELINES,
        {
            "x-ms-client-request-id": "an id of the request, made anew by each SDK call",
            "x-ms-return-client-request-id": "asks for that id in the answer's headers",
            "x-ms-useragent": "stands in for user-agent in browsers",
        },
    ),
    credential_header="api-key",
)
