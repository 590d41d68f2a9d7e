"""`gateway doctor`: what is wrong with a running installation, asked from inside of it.

*finding* what one look showed, and what to mend · *look* all groups of checks, each with a deadline ·
*room* memory for the doctor itself · *host* limits of this machine or container · *reach* a name, a
port, TLS, an HTTP status, in this order · *places* every address behind the config's upstreams ·
*upstreams*, *engines*, *redis*, *local*, *otlp*, *running* what is looked at · *clock* what all of
them say of the time · *report* as people and programs read it.
"""
