"""Where entries live.

*Store* get/put/delete by key, raising only `StoreUnavailable` · *MemoryStore* a byte budget in
this process · *SqliteStore* one file, one thread of its own · *RedisStore* shared by replicas ·
*TieredStore* memory in front of either · *codec* entry <-> bytes, versioned and checksummed.
"""
