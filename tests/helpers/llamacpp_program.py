"""llama.cpp's own HTTP server, from the wheel of xllamacpp, as a process: `python -m` this file.

One server for each process is what the wheel allows.
"""

from __future__ import annotations

import argparse
import signal
import threading

import xllamacpp  # type: ignore[import-untyped]


def main() -> None:
    """Serve until SIGTERM; the first line of stdout is its URL."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--slot-tokens", type=int, default=8192)
    parser.add_argument("--no-slots", action="store_true", help="no /slots, as with --no-slots")
    arguments = parser.parse_args()

    params = xllamacpp.CommonParams()
    params.model.path = arguments.model
    params.model_alias = {"random"}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = arguments.slots * arguments.slot_tokens
    params.n_parallel = arguments.slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    # Else prompts that lost their slot are kept in 8 GB of memory beside it.
    params.cache_ram_mib = 0
    params.kv_unified = False
    params.endpoint_metrics = params.endpoint_props = True
    params.endpoint_slots = not arguments.no_slots
    params.verbosity = 0
    params.warmup = False
    server = xllamacpp.Server(params)

    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    print(server.listening_address, flush=True)
    stopped.wait()


if __name__ == "__main__":
    main()
