"""The verb: asks the endpoint, measures the cases, prints what it found.

Exit status: 0 fine; 1 some requests failed; 2 wrong usage, or an endpoint that can't be measured.
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import urlsplit

import orjson

from gateway.benchcmd.arguments import CASE_NAMES
from gateway.benchcmd.asker import Asker, Failed, Refused, Trouble
from gateway.benchcmd.cases import ANSWER, CASES, Bench, Extent, first_of_all
from gateway.benchcmd.dialect import DIALECTS
from gateway.benchcmd.figures import Case, Row
from gateway.benchcmd.page import as_page
from gateway.benchcmd.progress import showing
from gateway.benchcmd.prompts import Prompts
from gateway.benchcmd.report import as_json, as_table, compared, earlier

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

OK, INCOMPLETE, FAULTY = 0, 1, 2
RUNS, QUICK_RUNS = 5, 2
_KEYS = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
}


def run(
    arguments: argparse.Namespace,
    out: TextIO,
    err: TextIO,
    environ: Mapping[str, str] = os.environ,
) -> int:
    """Measure, and print; returns the exit status of the verb."""
    try:
        before = earlier(arguments.compare) if arguments.compare else None
        found = asyncio.run(_measure(arguments, err, environ))
        if before is not None:
            found["compared"] = compared(found, before)
        # First what took minutes to measure: the page may have nowhere to go.
        out.write(
            orjson.dumps(found).decode() + "\n" if arguments.json else as_table(found, before)
        )
        if arguments.html:
            _write(arguments.html, as_page(found, before))
    except Trouble as trouble:
        err.write(f"gateway bench: {trouble}\n")
        return FAULTY
    if found["broke_off"]:
        err.write(f"gateway bench: broke off: {found['broke_off']}\n")
    failed = any(case["failures"] for case in found["cases"].values())
    return INCOMPLETE if failed or found["broke_off"] else OK


async def _measure(
    arguments: argparse.Namespace, err: TextIO, environ: Mapping[str, str]
) -> dict[str, Any]:
    quick = bool(arguments.quick)
    extent = Extent(arguments.runs or (QUICK_RUNS if quick else RUNS), quick)
    names = [name for name in CASE_NAMES if not arguments.only or name in arguments.only]
    total = 1 + sum(CASES[name].requests(extent) for name in names)
    key = arguments.api_key or next(
        (found for name in _KEYS[arguments.api] if (found := environ.get(name))), None
    )
    base_url = base(arguments.base_url)
    began = datetime.now(UTC)
    asking = Asker(
        base_url,
        DIALECTS[arguments.api](),
        key=key,
        timeout_s=arguments.timeout,
        headers=_headers(arguments.header),
    )
    async with asking as asker:
        asker.model = arguments.model or await asker.first_model()
        with showing(total, err) as progress:
            progress.at("first request")
            bench = Bench(asker, Prompts(), extent, progress.step, Row("first request"))
            await _begin(bench)
            cases: list[Case] = []
            broke_off = None
            for name in names:
                progress.at(name)
                case = Case(name, CASES[name].title, [])
                cases.append(case)
                try:
                    await CASES[name].measure(bench, case)
                except Trouble as trouble:
                    # What was measured until then is worth having.
                    broke_off = str(trouble)
                    break
    about = {
        "base_url": base_url,
        "api": arguments.api,
        "model": asker.model,
        "began": began.isoformat(timespec="seconds"),
        "runs": extent.runs,
        "quick": quick,
        "bytes_per_token": round(bench.prompts.bytes_per_token, 3),
        "broke_off": broke_off,
    }
    return as_json(asker, cases, about)


async def _begin(bench: Bench) -> None:
    """The first request of all: whether it can be measured, and how long its tokens are. Raises
    Trouble.
    """
    messages = first_of_all(bench.prompts)
    asker = bench.asker
    try:
        timed = await asker.ask(messages, ANSWER)
    except Refused as refused:
        raise Trouble(f"{asker.base_url} does not take a plain question: {refused}") from refused
    except Failed as failed:
        raise Trouble(f"{asker.base_url} gives no answer: {failed}") from failed
    bench.done()
    bench.first.timed.append(timed)
    bench.prompts.learn(sum(len(message.text) for message in messages), timed.prompt_tokens)


def base(url: str) -> str:
    """As SDKs take it: without a path it is `/v1`'s. Raises Trouble."""
    try:
        parts = urlsplit(url)
    except ValueError as problem:
        raise Trouble(f"{url!r} is no base URL: {problem}") from problem
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise Trouble(f"{url!r} is no base URL, such as http://127.0.0.1:8000/v1")
    if parts.query or parts.fragment:
        raise Trouble(f"{url!r}: a base URL has no query")
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _headers(said: Sequence[str]) -> dict[str, str]:
    headers = {}
    for each in said:
        name, colon, value = each.partition(":")
        if not colon or not name.strip():
            raise Trouble(f"--header {each!r}: must be NAME:VALUE")
        headers[name.strip()] = value.strip()
    return headers


def _write(name: str, page: str) -> None:
    try:
        Path(name).write_text(page, encoding="utf-8")
    except OSError as error:
        raise Trouble(f"{name}: {error.strerror or error}") from error
