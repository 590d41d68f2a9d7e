"""An OTLP/gRPC receiver, made of grpcio and the protocol's own messages, that keeps what it gets."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tests.helpers.otlp_collector import Collector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@asynccontextmanager
async def otlp_grpc_collector(
    credentials: grpc.ServerCredentials | None = None,
) -> AsyncIterator[Collector]:
    """A collector on a free port of the loopback; `endpoint` has no scheme. With TLS for `credentials`."""
    collector, loop = Collector(), asyncio.get_running_loop()

    async def took(take: Callable[[Any], None], message: Any, headers: dict[str, str]) -> None:
        async with collector.changed:
            collector.headers.append(headers)
            take(message)
            collector.changed.notify_all()

    def served(take: Callable[[Any], None], answer: Callable[[], Any]) -> Callable[..., Any]:
        def export(_: object, message: Any, context: grpc.ServicerContext) -> Any:
            told = {str(key): str(value) for key, value in context.invocation_metadata()}
            asyncio.run_coroutine_threadsafe(took(take, message, told), loop).result(5)
            return answer()

        return export

    def service(base: type, take: Callable[[Any], None], answer: Callable[[], Any]) -> Any:
        return type("Service", (base,), {"Export": served(take, answer)})()

    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        for module, messages, signal, take in (
            (trace_service_pb2_grpc, trace_service_pb2, "Trace", collector.took_spans),
            (metrics_service_pb2_grpc, metrics_service_pb2, "Metrics", collector.took_metrics),
            (logs_service_pb2_grpc, logs_service_pb2, "Logs", collector.took_logs),
        ):
            answer = getattr(messages, f"Export{signal}ServiceResponse")
            made = service(getattr(module, f"{signal}ServiceServicer"), take, answer)
            getattr(module, f"add_{signal}ServiceServicer_to_server")(made, server)
        if credentials is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        collector.endpoint = f"127.0.0.1:{port}"
        try:
            yield collector
        finally:
            await asyncio.to_thread(server.stop(None).wait)
