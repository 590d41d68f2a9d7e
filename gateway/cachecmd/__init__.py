"""`gateway cache`: what operators do with the cache.

*arguments* the verbs and their flags · *desk* the protocol of who carries them out ·
*local* on the configured store itself · *remote* through a running gateway's admin port ·
*look* stats and show · *purge* · *move* export and import · *fill* recorded requests, asked once.
"""
