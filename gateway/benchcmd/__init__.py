"""`gateway bench`: what people measure by hand at an LLM endpoint, done alike every time.

*arguments* the flags · *dialect* a question in the words of an API, and its answer's events ·
*asker* sends one and times it · *prompts* texts that nobody has seen · *cases* what is measured ·
*figures* medians and spreads · *report* table, JSON and comparison · *page* plots ·
*progress* how far it is · *command* the verb.
"""
