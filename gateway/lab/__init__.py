"""The bench beside the kitchen: `serve` never imports it.

*StubProvider* a provider without a model: OpenAI's and Anthropic's wire formats, an answer that
is a function of the request's meaning · *demo* the same question in several guises, sent with the
official SDKs through a gateway in front of the stub · *CacheSim* a provider's prompt cache,
simulated · *trace* recorded calls · *policy* a way of marking prompts · *optimum* the least that any
markers could have cost · *replay* a trace past policies, the gateway's own among them · *EngineSim* a
self-hosted engine, as a router feels it.
"""
