"""What hears the client: HTTP in, HTTP out, nothing decided here.

*body* a request body, bounded · *forwarding* which headers travel on · *relay* a response that
goes out as it came · *tunnel* an upgraded connection · *replies* answers of our own · *listener*
what is no HTTP · *drain* the end of serving · *probes* /livez, /readyz and /metrics on a port of
their own.
"""
