"""The decisions, pure: data in, data out.

*Question* what a request asks, as far as caching is concerned · *identity* of a request's
meaning · *Entry* a stored answer · *Directives* what the client's `Cache-Control` says ·
*Decision* what to do next, with its *Reason*. No I/O, clock, randomness or logging in here:
the time and random seeds are arguments, so every decision can be proved by property tests and
replayed on recorded traffic by the very code that serves.
"""
