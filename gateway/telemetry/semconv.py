"""Every name that leaves the process as telemetry, once.

`gen_ai.*` follows open-telemetry/semantic-conventions-genai at commit 6fd0d76 (Development: no
release had been cut, so a rename makes data vanish silently; that is why names live only here).
`http.*`, `url.*`, `server.*` and `error.*` are stable semantic conventions. `gateway.*` is ours:
no convention exists for a gateway's own response cache.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SCOPE = "warmgate"
"""Instrumentation scope of everything we emit, and the default `service.name`."""

SERVICE_NAME = "service.name"
SERVICE_VERSION = "service.version"

# Span names that are not built from a method or an operation.
SPAN_LOOKUP = "cache lookup"
SPAN_STORE = "cache store"
SPAN_REVALIDATE = "cache revalidate"
SPAN_PLAN = "plan"
SPAN_ROUTE = "route"

EVENT_ROUTE_RETRY = "route retry"
"""On the server span, for each replica that failed before an answer began."""
EVENT_INFERENCE_DETAILS = "gen_ai.client.inference.operation.details"
"""A log record with what was asked and answered; only where content capture asks for events."""

# Stable HTTP conventions.
ERROR_TYPE = "error.type"
HTTP_METHOD = "http.request.method"
HTTP_METHOD_ORIGINAL = "http.request.method_original"
HTTP_RESEND_COUNT = "http.request.resend_count"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
URL_FULL = "url.full"
URL_PATH = "url.path"
URL_SCHEME = "url.scheme"

# Stable database conventions, of Redis.
DB_BATCH_SIZE = "db.operation.batch.size"
DB_OPERATION = "db.operation.name"
DB_SYSTEM = "db.system.name"
DB_REDIS = "redis"

METHOD_OTHER = "_OTHER"
METHODS = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
)
"""Methods that are named; any other is `_OTHER`, as the HTTP conventions ask."""

# A model call: the inference span and, where it says so, its metrics.
GEN_AI_OPERATION = "gen_ai.operation.name"
GEN_AI_PROVIDER = "gen_ai.provider.name"
GEN_AI_CONVERSATION_ID = "gen_ai.conversation.id"
GEN_AI_OUTPUT_TYPE = "gen_ai.output.type"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM = "gen_ai.request.stream"
GEN_AI_REQUEST_CHOICE_COUNT = "gen_ai.request.choice.count"
GEN_AI_REQUEST_FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty"
GEN_AI_REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_PRESENCE_PENALTY = "gen_ai.request.presence_penalty"
GEN_AI_REQUEST_PREVIOUS_RESPONSE = "gen_ai.request.previous_response.id"
GEN_AI_REQUEST_REASONING_LEVEL = "gen_ai.request.reasoning.level"
GEN_AI_REQUEST_SEED = "gen_ai.request.seed"
GEN_AI_REQUEST_TEMPERATURE = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_K = "gen_ai.request.top_k"
GEN_AI_REQUEST_TOP_P = "gen_ai.request.top_p"
GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_ID = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
GEN_AI_TOKEN_MODALITY = "gen_ai.token.modality"  # noqa: S105 - a count of tokens, not a secret
GEN_AI_TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - likewise; up to v1.41
GEN_AI_USAGE_CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_WRITE = "gen_ai.usage.cache_write.input_tokens"
GEN_AI_USAGE_INPUT = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_REASONING = "gen_ai.usage.reasoning.output_tokens"
OPENAI_API_TYPE = "openai.api.type"
OPENAI_REQUEST_TIER = "openai.request.service_tier"
OPENAI_RESPONSE_FINGERPRINT = "openai.response.system_fingerprint"
OPENAI_RESPONSE_TIER = "openai.response.service_tier"

# Content, only where OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT asks for it.
GEN_AI_INPUT_MESSAGES = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES = "gen_ai.output.messages"
GEN_AI_SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
GEN_AI_TOOL_DEFINITIONS = "gen_ai.tool.definitions"

OPENAI_API_TYPES: Mapping[str, str] = MappingProxyType(
    {"openai_chat": "chat_completions", "openai_responses": "responses"}
)
"""Wire API -> the value of `OPENAI_API_TYPE`."""

GEN_AI_USAGE_CACHE_CREATION = "gen_ai.usage.cache_creation.input_tokens"
"""What `GEN_AI_USAGE_CACHE_WRITE` was called up to semantic conventions v1.41."""

V1_41: Mapping[str, str] = MappingProxyType({GEN_AI_USAGE_CACHE_WRITE: GEN_AI_USAGE_CACHE_CREATION})
"""Latest name -> name that `telemetry.genai_names: v1_41` puts on spans; the others are equal."""

REQUEST_ATTRIBUTES = frozenset(
    (
        GEN_AI_CONVERSATION_ID,
        GEN_AI_OUTPUT_TYPE,
        GEN_AI_REQUEST_CHOICE_COUNT,
        GEN_AI_REQUEST_FREQUENCY_PENALTY,
        GEN_AI_REQUEST_MAX_TOKENS,
        GEN_AI_REQUEST_PRESENCE_PENALTY,
        GEN_AI_REQUEST_PREVIOUS_RESPONSE,
        GEN_AI_REQUEST_REASONING_LEVEL,
        GEN_AI_REQUEST_SEED,
        GEN_AI_REQUEST_TEMPERATURE,
        GEN_AI_REQUEST_TOP_K,
        GEN_AI_REQUEST_TOP_P,
        OPENAI_API_TYPE,
        OPENAI_REQUEST_TIER,
    )
)
"""What a caller may add to an inference span. Nothing that is text of the prompt is in it, so
content can't slip onto a span (stop sequences are left out for that reason)."""

# Ours, on spans.
CACHE_RESULT = "gateway.cache.result"
CACHE_REASON = "gateway.cache.reason"
CACHE_KEY = "gateway.cache.key"
"""The first eight hex digits of the identity: enough to find it, too few to guess it."""
CACHE_STORED = "gateway.cache.stored"
CACHE_STORE_REASON = "gateway.cache.store.reason"
CACHE_STORE_OUTCOME = "gateway.cache.store.outcome"
CACHE_SAVED_TOKENS = "gateway.cache.saved.tokens"
CACHE_COLLAPSED = "gateway.cache.collapsed"
PROMPT_CACHE_REASON = "gateway.prompt_cache.reason"
PROMPT_CACHE_MARKERS = "gateway.prompt_cache.markers"
"""How many of ours stand in the request."""
PROMPT_CACHE_EXPECTED = "gateway.prompt_cache.expected_tokens"
PROMPT_CACHE_READ = "gateway.prompt_cache.read_tokens"
PROMPT_CACHE_WRITTEN = "gateway.prompt_cache.written_tokens"
PROMPT_CACHE_MISS_CAUSE = "gateway.prompt_cache.miss_cause"
PROMPT_CACHE_MISS_PATH = "gateway.prompt_cache.miss.path"
PROMPT_CACHE_MISS_KIND = "gateway.prompt_cache.miss.kind"
PROMPT_CACHE_MISS_BLOCK = "gateway.prompt_cache.miss.block"
PROMPT_CACHE_LOST = "gateway.prompt_cache.lost_tokens"
PROMPT_CACHE_REWRITES = "gateway.prompt_cache.rewrites"
PROMPT_CACHE_DRIFT = "gateway.prompt_cache.drift"
"""What was done to a prompt that was not sent as before, though its client only added to it."""
PROMPT_CACHE_DRIFT_PATH = "gateway.prompt_cache.drift.path"
PROMPT_CACHE_DRIFT_BLOCK = "gateway.prompt_cache.drift.block"
PROMPT_VOLATILE_PATH = "gateway.prompt.volatile.path"
PROMPT_VOLATILE_KIND = "gateway.prompt.volatile.kind"
PROMPT_VOLATILE_BEHIND = "gateway.prompt.volatile.behind.tokens"
PROMPT_VOLATILE_LOST = "gateway.prompt.volatile.lost.tokens_per_day"
PROMPT_VOLATILE = (
    *(PROMPT_VOLATILE_PATH, PROMPT_VOLATILE_KIND),
    *(PROMPT_VOLATILE_BEHIND, PROMPT_VOLATILE_LOST),
)
"""In the order in which they are told."""
REQUEST_ID = "gateway.request.id"
ROUTE_BACKEND = "gateway.route.backend"
ROUTE_BRANCH = "gateway.route.branch"
ROUTE_POLICY = "gateway.route.policy"
ROUTE_RETRY_REASON = "gateway.route.retry.reason"
ROUTE_WAIT = "gateway.route.wait"
"""Seconds that prompts before it were thought to take at the replica that was chosen."""
STREAM_ABORTED = "gateway.stream.aborted"
UPSTREAM_NAME = "gateway.upstream.name"

# Metrics. `CACHE_SAVED_TOKENS`, `PROMPT_CACHE_REWRITES` and `STREAM_ABORTED` name one too.
M_REQUESTS = "gateway.requests"
M_LOOKUPS = "gateway.cache.lookups"
M_LOOKUP_DURATION = "gateway.cache.lookup.duration"
M_STORE_OPERATIONS = "gateway.cache.store.operations"
M_STORE_DURATION = "gateway.cache.store.duration"
M_STORE_ENTRY_SIZE = "gateway.cache.store.entry.size"
M_SAVED_TOKENS = CACHE_SAVED_TOKENS
M_PROMPT_CACHE_PLANS = "gateway.prompt_cache.plans"
M_PROMPT_CACHE_PLAN_DURATION = "gateway.prompt_cache.plan.duration"
M_PROMPT_CACHE_REWRITES = PROMPT_CACHE_REWRITES
M_PROMPT_CACHE_REFUSALS = "gateway.prompt_cache.refusals"
M_PROMPT_CACHE_COMPARED = "gateway.prompt_cache.compared"
M_PROMPT_CACHE_DRIFT = PROMPT_CACHE_DRIFT
M_PROMPT_CACHE_TOKENS = "gateway.prompt_cache.tokens"
M_PROMPT_CACHE_MISSES = "gateway.prompt_cache.misses"
M_PROMPT_CACHE_LOST = "gateway.prompt_cache.lost"
M_PROMPT_CACHE_SPARED = "gateway.prompt_cache.spared"
M_PROMPT_CACHE_PREMIUM = "gateway.prompt_cache.premium"
M_INFERENCE_COST = "gateway.inference.cost"
M_WARM_REQUESTS = "gateway.warm.requests"
M_ENGINE_UP = "gateway.engine.up"
M_ENGINE_REQUESTS = "gateway.engine.requests"
M_ENGINE_KV_USAGE = "gateway.engine.kv.usage"
M_ENGINE_CAPACITY = "gateway.engine.kv.capacity"
M_ENGINE_PREFIX_HITS = "gateway.engine.prefix.hits"
M_ENGINE_RESTARTS = "gateway.engine.restarts"
M_ROUTE_REQUESTS = "gateway.route.requests"
M_ROUTE_RETRIES = "gateway.route.retries"
M_ROUTE_READY = "gateway.route.ready"
M_ROUTE_IN_FLIGHT = "gateway.route.in_flight"
M_ROUTE_PENDING = "gateway.route.pending"
M_ROUTE_MIRROR = "gateway.route.mirror"
M_ROUTE_EXPECTED = "gateway.route.expected"
M_ROUTE_REPORTED = "gateway.route.reported"
M_ROUTE_SHARED = "gateway.route.shared"
M_ROUTE_RECORDS = "gateway.route.records"
M_ROUTE_LAG = "gateway.route.lag"
M_OVERHEAD = "gateway.overhead.duration"
M_INFLIGHT = "gateway.inflight"
M_STREAM_ABORTED = STREAM_ABORTED
M_STORE_UNAVAILABLE = "gateway.store.unavailable"
M_SAVED_COST = "gateway.cache.saved.cost"
M_MARKERS = "gateway.markers"
M_FLIGHT_WAITERS = "gateway.flight.waiters"
M_SCOPE_REQUESTS = "gateway.scope.requests"
M_BACKEND_STATE = "gateway.backend.state"
M_BACKEND_REQUESTS = "gateway.backend.requests"
M_ROUTE_REPLICAS = "gateway.route.replicas"
M_LOOP_LAG = "gateway.loop.lag"
M_LOG_LOST = "gateway.log.lost"
M_CONFIG_RELOADS = "gateway.config.reloads"
M_CONFIG_REFUSED = "gateway.config.refused"
M_CONFIG_WAITING = "gateway.config.waiting"
M_PROCESS_CPU = "process.cpu"
M_PROCESS_MEMORY = "process.resident_memory"
M_PROCESS_OPEN_FDS = "process.open_fds"
M_PROCESS_MAX_FDS = "process.max_fds"
M_PROCESS_START = "process.start_time"
M_GC_COLLECTIONS = "python.gc.collections"
M_SPANS_LOST = "gateway.telemetry.spans.lost"
M_BUILD_INFO = "gateway.build.info"
M_HTTP_SERVER_DURATION = "http.server.request.duration"
M_HTTP_CLIENT_DURATION = "http.client.request.duration"
M_INFERENCE_DURATION = "gen_ai.client.inference.duration"
M_TIME_TO_FIRST_CHUNK = "gen_ai.client.inference.time_to_first_chunk"
M_TIME_PER_CHUNK = "gen_ai.client.inference.time_per_output_chunk"
M_OPERATION_INPUT = "gen_ai.client.inference.operation.input_tokens"
M_OPERATION_OUTPUT = "gen_ai.client.inference.operation.output_tokens"
M_USAGE_INPUT = "gen_ai.client.inference.usage.input_tokens"
M_USAGE_OUTPUT = "gen_ai.client.inference.usage.output_tokens"
M_USAGE_CACHE_READ = "gen_ai.client.inference.usage.cache_read.input_tokens"
M_USAGE_CACHE_WRITE = "gen_ai.client.inference.usage.cache_write.input_tokens"
M_USAGE_REASONING = "gen_ai.client.inference.usage.reasoning.output_tokens"

# What metrics of model calls were called up to v1.41: with `telemetry.genai_names` v1_41 or both.
M_V1_41_DURATION = "gen_ai.client.operation.duration"
M_V1_41_TIME_TO_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
M_V1_41_TIME_PER_CHUNK = "gen_ai.client.operation.time_per_output_chunk"
M_V1_41_TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 - a count, not a secret

# Label names of our own metrics (those of the conventions are the attribute names above).
L_ROUTE = "route"
L_RESULT = "result"
L_REASON = "reason"
L_STATUS_CLASS = "status_class"
L_PROVIDER = "provider"
L_MODEL = "model"
L_OUTCOME = "outcome"
L_DIRECTION = "direction"
L_SIDE = "side"
L_OPERATION = "operation"
L_CAUSE = "cause"
L_REWRITE = "rewrite"
L_CHANGE = "change"
L_KIND = "kind"
L_UPSTREAM = "upstream"
L_BACKEND = "backend"
L_BRANCH = "branch"
L_STATE = "state"
L_ACTION = "action"
L_SCOPE = "scope"
L_GENERATION = "generation"
L_VERSION = "version"
L_PYTHON = "python"

OTHER = "_other"
"""The label of whatever a client made up: it can't make new series."""
