"""Who answers, and how we ask.

*Endpoint* a configured upstream, ready to use · *Choice* from path, headers and model to an
endpoint and its cache policy · *UpstreamClient* sends requests, without silent defaults ·
*Connection* one of its connections, on which one request at a time goes out · *Pool* those that
are kept · *Origin* the scheme, host and port for which they are · *Engines* what self-hosted ones
tell of themselves.
"""
