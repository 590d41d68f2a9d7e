"""One frozen tree of settings: flags over environment over file over defaults.

*setting* one value · *section* settings that belong together · *document* the YAML file ·
*origin* who set a value · *catalogue* all that can be set · *fault* what is wrong, where, and
how to mend it (`gateway.errors`).
"""

from gateway.config.caching import Cache, Route, RouteCache, StoreClasses
from gateway.config.environment import CONFIG_FILE
from gateway.config.kinds import ProviderName, When
from gateway.config.ledger import Ledger
from gateway.config.load import Loaded, load, load_with_origins
from gateway.config.pools import BackendAt, Health, Routing
from gateway.config.prompt_caching import PromptCache, PromptRefresh, RoutePromptCache, WarmUp
from gateway.config.section import HOURS, KIB, MIB, MINUTES, SECONDS, Section
from gateway.config.storage import Store, StoreTls
from gateway.config.tree import DEFAULT_UPSTREAMS, Config, Log, Server, Telemetry, Upstream

__all__ = [
    "CONFIG_FILE",
    "DEFAULT_UPSTREAMS",
    "HOURS",
    "KIB",
    "MIB",
    "MINUTES",
    "SECONDS",
    "BackendAt",
    "Cache",
    "Config",
    "Health",
    "Ledger",
    "Loaded",
    "Log",
    "PromptCache",
    "PromptRefresh",
    "ProviderName",
    "Route",
    "RouteCache",
    "RoutePromptCache",
    "Routing",
    "Section",
    "Server",
    "Store",
    "StoreClasses",
    "StoreTls",
    "Telemetry",
    "Upstream",
    "WarmUp",
    "When",
    "load",
    "load_with_origins",
]
