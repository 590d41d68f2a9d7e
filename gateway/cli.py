"""The command line: verbs parse, call, exit. Results go to stdout, everything else to stderr.

Exit status: 0 fine; 1 the answer is no (`key` on two files that differ, `lint` that found faults);
2 wrong usage, a config with faults, unreadable input; 130 interrupted; 141 nobody reads our output
any more.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from gateway import __version__, replay_arguments, simulate_arguments
from gateway.benchcmd import arguments as bench_arguments
from gateway.cachecmd.arguments import add_to
from gateway.config import CONFIG_FILE, load, load_with_origins
from gateway.config.show import as_json, as_yaml
from gateway.config.source import Source
from gateway.doctorcmd import arguments as doctor_arguments
from gateway.errors import ConfigError
from gateway.savingscmd import arguments as savings_arguments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OK = 0
FAULTY = 2
# Shells report a program that a signal ended as 128 + its number.
INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + signal.SIGPIPE

_FLAGS = {
    "host": "server.host",
    "port": "server.port",
    "probe_port": "server.probe_port",
    "admin_port": "admin.port",
    "store_url": "store.url",
}
"""Flags of `serve`, and the setting that each one is."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status. Wrong usage raises SystemExit(2), as argparse does."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.verb(arguments)
        sys.stdout.flush()
    except ConfigError as error:
        _print_faults(error)
        return FAULTY
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout once more as it exits; let that succeed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway",
        description="Warmgate, the caching gateway for LLM traffic.",
        epilog="Settings come from flags, GATEWAY_* variables and the config file, in this order.",
    )
    parser.add_argument("--version", action="version", version=f"warmgate {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    serve = verbs.add_parser("serve", help="run the gateway")
    _add_config(serve)
    serve.add_argument("--host", metavar="ADDRESS", help="address of the API port")
    serve.add_argument("--port", metavar="N", help="API port; 0 takes a free one")
    serve.add_argument("--probe-port", metavar="N", help="port of /livez, /readyz and /metrics")
    serve.add_argument("--admin-port", metavar="N", help="port of /admin/*")
    serve.add_argument(
        "--store-url", metavar="URL", help="memory://, sqlite:///path or redis://host:6379/0"
    )
    serve.set_defaults(verb=_serve)

    check = verbs.add_parser(
        "check", help="name every fault of the config, or print what holds and who set it"
    )
    _add_config(check)
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(verb=_check)

    demo = verbs.add_parser("demo", help="see hits and misses; needs no key and no network")
    demo.set_defaults(verb=_demo)

    key = verbs.add_parser(
        "key", help="the identity of a request body, or where two of them first differ"
    )
    _add_config(key)
    key.add_argument(
        "--route", default="/v1/chat/completions", metavar="PATH", help="default: %(default)s"
    )
    key.add_argument("--upstream", default="openai", metavar="NAME", help="default: %(default)s")
    key.add_argument("--json", action="store_true", help="print JSON")
    key.add_argument("file", metavar="FILE", help="a request body")
    key.add_argument("other", metavar="FILE", nargs="?", help="another one, to compare")
    key.set_defaults(verb=_key)

    lint = verbs.add_parser(
        "lint", help="what in request bodies keeps the provider's cache from being reused"
    )
    lint.add_argument("--route", metavar="PATH", help="default: inferred from each body's shape")
    lint.add_argument("--json", action="store_true", help="print JSON")
    lint.add_argument(
        "files", metavar="FILE", nargs="+", help="a request body, or one on each line; - for stdin"
    )
    lint.set_defaults(verb=_lint)

    cache = verbs.add_parser("cache", help="look into the cache, purge, move and fill it")
    add_to(cache, _add_config)

    savings = verbs.add_parser("savings", help="what was paid, what was saved, and by what")
    savings_arguments.add_to(savings, _add_config)

    simulate = verbs.add_parser(
        "simulate", help="a provider's prompt cache, or a self-hosted engine, on a local port"
    )
    simulate_arguments.add_to(simulate)
    simulate.set_defaults(verb=_simulate)

    replay = verbs.add_parser(
        "replay", help="recorded traffic past each way of marking prompts, or of choosing a replica"
    )
    replay_arguments.add_to(replay)
    replay.set_defaults(verb=_replay)

    bench = verbs.add_parser(
        "bench", help="how fast an endpoint answers, and what its prompt cache is worth"
    )
    bench_arguments.add_to(bench)
    bench.set_defaults(verb=_bench)

    doctor = verbs.add_parser(
        "doctor", help="what is wrong with a running installation, and how to mend it"
    )
    doctor_arguments.add_to(doctor, _add_config)
    return parser


def _add_config(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--config", metavar="FILE", help=f"YAML config file; default: ${CONFIG_FILE}, else none"
    )


def _config_file(arguments: argparse.Namespace) -> Path | None:
    name = arguments.config or os.environ.get(CONFIG_FILE)
    return Path(name) if name else None


def _serve(arguments: argparse.Namespace) -> int:
    flags = {path: getattr(arguments, flag) for flag, path in _FLAGS.items()}
    source = Source(_config_file(arguments), os.environ, flags)
    # Until the loop listens: the first process of a container has no default for SIGTERM, which would
    # be lost; and SIGHUP, which has the config read again, would end us before it was read once.
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, _end),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    }
    try:
        config = source.load().config
        with _loading():
            from gateway.process import serve  # noqa: PLC0415 - only this verb pays for it

        return serve(config, source)
    finally:
        for number, heard in before.items():
            signal.signal(number, heard)


def _end(*_: object) -> None:
    raise SystemExit(OK)


@contextmanager
def _loading() -> Iterator[None]:
    """While the server is imported, which is most of the time that a start takes."""
    # Nothing of it goes away again: the collector would walk it over and over.
    gc.disable()
    # structlog loads rich where it is there (5 MB), for tracebacks that we have drawn plainly.
    # None in sys.modules is how Python spells that a module is not there.
    hidden = "rich" not in sys.modules
    if hidden:
        sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules["rich"]
        gc.enable()


def _check(arguments: argparse.Namespace) -> int:
    try:
        loaded = load_with_origins(_config_file(arguments), os.environ)
    except ConfigError as error:
        if arguments.json:
            _print_json({"ok": False, "faults": error.faults})
        raise
    if arguments.json:
        _print_json(as_json(loaded))
    else:
        sys.stdout.write(as_yaml(loaded))
    return OK


def _demo(arguments: argparse.Namespace) -> int:
    del arguments
    from gateway.lab.demo import run  # noqa: PLC0415 - `serve` never imports the lab

    return run()


def _key(arguments: argparse.Namespace) -> int:
    config = load(_config_file(arguments), os.environ)
    from gateway.keycmd import run  # noqa: PLC0415 - only this verb pays for it

    files = [name for name in (arguments.file, arguments.other) if name is not None]
    return run(
        files,
        arguments.route,
        arguments.upstream,
        config,
        arguments.json,
        sys.stdout,
        sys.stderr,
    )


def _lint(arguments: argparse.Namespace) -> int:
    from gateway.lint import run  # noqa: PLC0415 - only this verb pays for it

    return run(arguments.files, arguments.route, arguments.json, sys.stdout, sys.stderr)


def _simulate(arguments: argparse.Namespace) -> int:
    from gateway import simulatecmd  # noqa: PLC0415 - `serve` never imports the lab

    if arguments.provider == "engine":
        return simulatecmd.run_engine(arguments, sys.stdout, sys.stderr)
    return simulatecmd.run(
        arguments.provider,
        arguments.host,
        arguments.port,
        ttft_s=arguments.ttft,
        clock=arguments.clock,
        out=sys.stdout,
        err=sys.stderr,
    )


def _replay(arguments: argparse.Namespace) -> int:
    from gateway.replaycmd import run  # noqa: PLC0415 - `serve` never imports the lab

    return run(arguments, sys.stdout, sys.stderr)


def _bench(arguments: argparse.Namespace) -> int:
    from gateway.benchcmd.command import run  # noqa: PLC0415 - only this verb pays for it

    return run(arguments, sys.stdout, sys.stderr)


def _print_json(value: object) -> None:
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    sys.stdout.write(text.decode())


def _print_faults(error: ConfigError) -> None:
    count = len(error.faults)
    sys.stderr.write(f"gateway: {count} {'fault' if count == 1 else 'faults'} in the config\n")
    for fault in error.faults:
        sys.stderr.write(f"\n{fault.path}\n  {fault.problem}\n  mend: {fault.mend}\n")
