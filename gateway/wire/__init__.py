"""What each wire API means, pure: one file for each API, one table from route to API.

*Question* a request body, understood · *Answer* a response, read · *serve* an entry in the form
that this client asked for · *error* our own errors in the API's own shape.
"""
