"""The server hears: listeners, routes and streams on aiohttp, and the port that probes ask."""
