"""`gateway savings`: what was paid and saved.

*arguments* the flags, and what they call · *sources* who tells it: the configured store itself, or a
running gateway · *table* as people read it · *lines* as programs do: JSON and CSV.
"""
