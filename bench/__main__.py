"""`make bench`: start everything, go round the cases, keep what was measured, write the page."""

from __future__ import annotations

import argparse
import datetime as dt
import platform
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import cases, peers, report
from bench.bodies import MARK, SIZES, chat
from bench.figures import percentile
from bench.load import CONNECTIONS, OneConnection, Seeds, latencies, run_wrk, streams
from bench.servers import STREAM_EVENTS, Ground

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.cases import Case

STREAMS = 64
_LATENCY_S = 0.5
_WARM_S = 1
_FEW = 100
_LONGER_S = 6


class Bench:
    """One run. `rows` is what it measured, a line for each case, size and round."""

    def __init__(self, ground: Ground, wanted: list[str]) -> None:
        self._ground = ground
        self._wanted = [word.lower() for word in wanted]
        self._seeds = Seeds()
        self._bodies = {name: chat(size) for name, size in SIZES.items()}
        self._files = {}
        for name, body in self._bodies.items():
            self._files[name] = ground.folder / f"body-{name}.json"
            self._files[name].write_bytes(body)
        self._stream_body = chat(SIZES["1k"], stream=True)
        self.rows: list[dict[str, Any]] = []
        self.refused: dict[str, str] = {}
        """Cases that can't be measured, and why."""

    def wants(self, case: Case) -> bool:
        return not self._wanted or any(word in case.name.lower() for word in self._wanted)

    def request(self, case: Case, size: str, seconds: float, *, one: bool = True) -> None:
        """One round of a case: its throughput and CPU at 64 connections, its latency at one."""
        key = f"{case.name} {size}"
        if key in self.refused or size not in case.sizes:
            return
        try:
            row = self._measured(case, size, seconds, one=one)
        except (RuntimeError, OSError, ValueError) as problem:
            if case.server in {"", "nginx", "floor"} or case.server.startswith("gateway"):
                raise
            self.refused[key] = str(problem).partition("\n")[0][:200]
            return
        self.rows.append(row)
        _say(row)

    def _measured(self, case: Case, size: str, seconds: float, *, one: bool) -> dict[str, Any]:
        port = self._port(case)
        body = self._bodies[size]
        server = self._ground.servers.get(case.server)
        self._prove(case, port, body)
        first = not any(r["case"] == case.name and r["size"] == size for r in self.rows)
        if first:
            self._wrk(case, port, size, _WARM_S)
        if server:
            server.process.settle()
        before = server.process.cpu_us() if server else 0.0
        load = self._wrk(case, port, size, seconds)
        if load.requests < _FEW and not load.failed and server:
            # Some peers take seconds for the first answers at so many connections.
            server.process.settle()
            before = server.process.cpu_us()
            load = self._wrk(case, port, size, _LONGER_S)
        spent = server.process.cpu_us() - before if server else 0.0
        if load.failed:
            raise RuntimeError(f"{case.name}: {load.failed} of {load.requests} requests failed")
        row: dict[str, Any] = {
            "kind": "requests",
            "case": case.name,
            "size": size,
            "requests": load.requests,
            "per_s": round(load.per_s, 1),
            "cpu_us": round(spent / load.requests, 2) if server and load.requests else None,
            "loaded_p50_us": load.p50_us,
            "loaded_p99_us": load.p99_us,
        }
        if server:
            server.process.settle()
        if one:
            seed = self._seed(case)
            took = latencies(port, case.path, body, case.headers, seed, _LATENCY_S)
            row["p50_us"] = round(percentile(took, 0.5), 1)
            row["p99_us"] = round(percentile(took, 0.99), 1)
        if server:
            seen = server.process.rss_bytes()
            server.facts["rss_loaded_bytes"] = max(seen, server.facts.get("rss_loaded_bytes", 0))
        self._prove(case, port, body)
        return row

    def paced(self, case: Case) -> None:
        """One round of paced streams."""
        server = self._ground.servers.get(case.server)
        port = server.port if server else self._ground.paced_port
        before = server.process.cpu_us() if server else 0.0
        seed = self._seeds.take(STREAMS)
        first, late = streams(port, case.path, self._stream_body, case.headers, seed, STREAMS)
        spent = server.process.cpu_us() - before if server else 0.0
        # The last event tells of the end, and not of the time.
        if len(first) != STREAMS or len(late) != STREAMS * (STREAM_EVENTS - 1):
            raise RuntimeError(f"{case.name}: {len(late)} events of {len(first)} streams came")
        row = {
            "kind": "streams",
            "case": case.name,
            "events": len(late),
            "cpu_us": round(spent / (STREAMS * STREAM_EVENTS), 2) if server else None,
            "first_p50_us": round(percentile(first, 0.5), 1),
            "first_p99_us": round(percentile(first, 0.99), 1),
            "p50_us": round(percentile(late, 0.5), 1),
            "p99_us": round(percentile(late, 0.99), 1),
        }
        self.rows.append(row)
        _say(row)

    def _wrk(self, case: Case, port: int, size: str, seconds: float) -> Any:
        return run_wrk(
            self._ground.load_cores,
            port,
            case.path,
            self._files[size],
            case.headers,
            self._seed(case),
            seconds,
        )

    def _seed(self, case: Case) -> int | None:
        return self._seeds.take(1_000_000) if case.distinct else None

    def _port(self, case: Case) -> int:
        return self._ground.servers[case.server].port if case.server else self._ground.stub_port

    def _prove(self, case: Case, port: int, body: bytes) -> None:
        """See that the server does what the case says."""
        if case.distinct:
            body = body.replace(MARK.encode(), b"%012d" % self._seeds.take(1))
        connection = OneConnection(port, case.path, case.headers)
        try:
            head = connection.ask(body)[1]
            if case.proof is None:
                return
            if not case.distinct:
                # What is stored comes after the answer's last byte, and may take a moment.
                time.sleep(0.05)
                head = connection.ask(body)[1]
        finally:
            connection.close()
        name, holds = case.proof
        for line in head.decode("latin-1").split("\r\n"):
            key, _, value = line.partition(":")
            if key.lower() == name and holds in value:
                return
        raise RuntimeError(f"{case.name}: no {name} with {holds!r} in {head!r}")


def _say(row: dict[str, Any]) -> None:
    cpu = f"{row['cpu_us']:9.1f} us CPU" if row["cpu_us"] is not None else " " * 16
    rate = f"{row['per_s']:9.0f}/s" if "per_s" in row else ""
    delay = f"p50 {row['p50_us']:8.0f} p99 {row['p99_us']:8.0f} us" if "p50_us" in row else ""
    print(f"{row['case']:28} {row.get('size', 'stream'):6} {cpu} {rate} {delay}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, sizes 1k and 32k")
    parser.add_argument("--cases", default="", help="parts of names, with commas: door,miss")
    parser.add_argument("--sizes", default="", help="1k,32k,256k")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0, help="of each measurement; whole ones")
    parser.add_argument("--peers", action="store_true", help="beside LiteLLM and others; minutes")
    parser.add_argument("--no-write", action="store_true", help="print, and keep nothing")
    return parser.parse_args()


def main() -> int:
    """Run it; returns the exit status."""
    asked = _arguments()
    rounds = asked.rounds or (1 if asked.quick else 4)
    seconds = asked.seconds or 1
    sizes = [s for s in asked.sizes.split(",") if s] or list(SIZES)[: 2 if asked.quick else 3]
    wanted = [word.strip() for word in asked.cases.split(",") if word.strip()]
    began = time.monotonic()
    # So that whatever ends us ends the servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        ground = Ground(Path(folder))
        try:
            bench = Bench(ground, wanted)
            facts = _run(bench, ground, sizes, rounds, seconds, peers_too=asked.peers)
        finally:
            ground.close()
    result = {
        "taken": dt.datetime.now(dt.UTC).date().isoformat(),
        "took_s": round(time.monotonic() - began),
        "machine": _machine(),
        "method": {
            "rounds": rounds,
            "seconds": seconds,
            "connections": CONNECTIONS,
            "streams": STREAMS,
            "events": STREAM_EVENTS,
        },
        "peers": peers.versions() if asked.peers else [],
        "facts": facts,
        "rows": bench.rows,
        "refused": bench.refused,
    }
    text = report.markdown(result)
    print(f"\n{text}")
    # A part of a run says nothing about the rest: only a whole one is kept.
    if not (asked.no_write or asked.quick or wanted or asked.sizes):
        report.write(result, text)
    return 0


def _run(
    bench: Bench,
    ground: Ground,
    sizes: list[str],
    rounds: int,
    seconds: float,
    *,
    peers_too: bool,
) -> dict[str, dict[str, float]]:
    plain = [case for case in cases.PLAIN if bench.wants(case)]
    paced = [case for case in cases.PACED if bench.wants(case)]
    traced = [
        case
        for variant in cases.TELEMETRY
        for case in cases.telemetry(variant)
        if bench.wants(case)
    ]
    _start(ground, {case.server for case in (*plain, *paced, *traced)})
    if peers_too:
        plain += peers.start(ground)
    for _ in range(rounds):
        for size in sizes:
            for case in plain:
                bench.request(case, size, seconds)
        for case in paced:
            bench.paced(case)
    for _ in range(rounds):
        for case in traced:
            bench.request(case, "32k", seconds, one=False)
    facts = {name: server.facts for name, server in ground.servers.items()}
    if "gateway" in facts:
        facts["gateway"]["start_s"] = sorted(ground.restarts("start", 3))[1]
    return facts


def _start(ground: Ground, names: Iterable[str]) -> None:
    variants: dict[str, Any] = {
        "nginx": ground.nginx,
        "floor": ground.floor,
        "gateway": lambda: ground.gateway("gateway"),
        "gateway-planned": lambda: ground.gateway(
            "gateway-planned", {"prompt_cache": {"markers": "auto", "causes": True}}
        ),
        "gateway-parse": lambda: ground.gateway("gateway-parse", {"cache": {"door_entries": 0}}),
        "gateway-redis": lambda: ground.gateway(
            "gateway-redis", {"store": {"url": ground.redis(), "memory_bytes": 0}}
        ),
        "gateway-paced": lambda: ground.gateway("gateway-paced", paced=True),
    }
    alive = f"http://127.0.0.1:{ground.stub_port}"
    tracing = {
        "off": {"OTEL_TRACES_SAMPLER": "always_off"},
        "1 %": {
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.01",
        },
        "100 %": {"OTEL_TRACES_SAMPLER": "parentbased_always_on"},
        "dead collector": {"OTEL_TRACES_SAMPLER": "parentbased_always_on"},
    }
    for variant, env in tracing.items():
        # Port 9 (discard) refuses on any machine that has not asked for it.
        where = "http://127.0.0.1:9" if variant == "dead collector" else alive
        settings = {} if variant == "off" else {**env, "OTEL_EXPORTER_OTLP_ENDPOINT": where}
        name = f"gateway-traces-{variant}"
        variants[name] = lambda name=name, settings=settings: ground.gateway(name, env=settings)
    for name, start in variants.items():
        if name in names:
            start()


def _machine() -> dict[str, str]:
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    shown = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False)
    return {
        "cpu": cpu,
        "python": platform.python_version(),
        "aiohttp": version("aiohttp"),
        "nginx": shown.stderr.partition("/")[2].strip(),
    }


if __name__ == "__main__":
    sys.exit(main())
