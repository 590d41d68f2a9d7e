"""Who answers, and how we ask.

*Endpoint* a configured upstream, ready to use · *Choice* from path, headers and model to an
endpoint and its cache policy · *UpstreamClient* the sessions, without silent defaults.
"""
