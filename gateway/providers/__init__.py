"""What each provider or engine documents, as dated and sourced data; pure.

*Provider* who answers, and its documented rules · *ApiRules* those rules for one wire API ·
*Rule* one line of a table: its reason and its source. `unknown` is a provider too: the most
careful one, for an endpoint that we know nothing about.
"""
