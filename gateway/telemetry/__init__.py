"""Telemetry tells what happened: spans, metrics, one log line for each request.

`Telemetry` holds `spans` and `metrics`, built once at start from the config and the standard
OTEL_* variables. Whatever is off is a null object whose methods do nothing. None of it carries
content, credentials or header values, and none of it may fail or delay a request: spans and
pushed metrics wait in bounded queues for a thread of their own.
"""
