"""`gateway key`, as it is typed: the identity of a body, or where two of them differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway import cli
from gateway.core.canonical import parse
from gateway.keycmd import first_difference

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]
    Write = Callable[[bytes], str]

HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Type `gateway key ...`; gives exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GATEWAY_CONFIG", raising=False)

    def typed(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(["key", *arguments])
        told = capsys.readouterr()
        return status, told.out, told.err

    return typed


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A file with these bytes; gives its path."""
    count = iter(range(100))

    def written(body: bytes) -> str:
        path = tmp_path / f"body{next(count)}.json"
        path.write_bytes(body)
        return str(path)

    return written


def chat(**more: object) -> bytes:
    return orjson.dumps({"model": "gpt-4o", "messages": HI, **more})


def test_one_file_gives_its_canonical_form_and_identity(run: Run, write: Write) -> None:
    status, out, err = run(write(chat(temperature=1.0, stream=True)))
    canonical, identity = out.splitlines()
    assert (status, err) == (0, "")
    assert orjson.loads(canonical)["temperature"] == 1
    assert "stream" not in orjson.loads(canonical)
    word, key, *_ = identity.split()
    assert word == "identity"
    assert len(bytes.fromhex(key)) == 32


def test_as_json_it_can_be_read_by_a_program(run: Run, write: Write) -> None:
    status, out, _ = run("--json", write(chat()))
    told = orjson.loads(out)
    assert status == 0
    assert len(told["identity"]) == 64
    assert told["route"] == "/v1/chat/completions"
    assert (told["upstream"], told["provider"], told["pass"]) == ("openai", "openai", None)
    assert told["canonical"]["model"] == "gpt-4o"


def test_the_identity_tells_two_bodies_apart_and_upstreams_too(run: Run, write: Write) -> None:
    def identity(*arguments: str) -> str:
        told: str = orjson.loads(run("--json", *arguments)[1])["identity"]
        return told

    same = [write(chat(seed=1)), write(b' {"seed":1.0,' + chat()[1:])]
    assert identity(same[0]) == identity(same[1])
    assert identity(same[0]) != identity(write(chat(seed=2)))
    assert identity(same[0]) != identity("--upstream", "anthropic", same[0])


@pytest.mark.parametrize(
    "other",
    [
        b'{ "messages" : [{"content":"hi","role":"user"}],\n"model":"gpt-4o" }',
        chat(stream=True, stream_options={"include_usage": True}),
        chat(user="somebody", n=1),
        orjson.dumps(
            {
                "model": "gpt-4o",
                "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            }
        ),
        b'{"model":"gpt-4o","messages":[{"role":"user","content":"\\u0068i"}]}',
    ],
)
def test_two_spellings_of_one_request_are_equal(run: Run, write: Write, other: bytes) -> None:
    assert run(write(chat()), write(other)) == (0, "equal\n", "")
    assert run("--json", write(chat()), write(other)) == (0, '{"equal":true}\n', "")


@pytest.mark.parametrize(
    ("left", "right", "path"),
    [
        (chat(), chat(model="gpt-4o-mini"), "$.model"),
        (chat(seed=1), chat(seed=2), "$.seed"),
        (chat(), chat(seed=2), "$.seed"),
        (chat(seed=2), chat(), "$.seed"),
        (
            chat(),
            chat(messages=[{"role": "user", "content": "ho"}]),
            "$.messages[0].content",
        ),
        (chat(), chat(messages=HI * 2), "$.messages"),
        (chat(stop=["a", "b"]), chat(stop=["a", "c"]), "$.stop[1]"),
        (chat(unknown_field={"a": 1}), chat(unknown_field={"a": 2}), "$.unknown_field.a"),
    ],
)
def test_two_requests_differ_at_a_path(
    run: Run, write: Write, left: bytes, right: bytes, path: str
) -> None:
    status, out, err = run(write(left), write(right))
    assert (status, err) == (1, "")
    where, _, sides = out.removeprefix("different at ").partition(":")
    # Strings become content parts: the path may go on, it never stops short.
    assert where.startswith(path)
    one, _, other = sides.partition(" / ")
    assert one.strip() != other.strip()
    status, out, _ = run("--json", write(left), write(right))
    told = orjson.loads(out)
    assert (status, told["equal"], told["path"]) == (1, False, where)
    assert told["left"] != told["right"]


def test_messages_are_compared_by_their_own_rules(run: Run, write: Write) -> None:
    route = ["--route", "/v1/messages", "--upstream", "anthropic"]
    plain = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": HI}
    marked: dict[str, Any] = {
        **plain,
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}],
            }
        ],
    }
    files = [write(orjson.dumps(body)) for body in (plain, marked)]
    assert run(*route, *files)[:2] == (0, "equal\n")
    status, out, _ = run(*route, files[0], write(orjson.dumps({**plain, "max_tokens": 8})))
    assert (status, out) == (1, "different at $.max_tokens: 9 / 8\n")


def test_what_is_never_cached_is_said(run: Run, write: Write) -> None:
    status, out, _ = run(write(chat(store=True)))
    assert status == 0
    assert out.splitlines()[-1].startswith("never cached: ")
    assert orjson.loads(run("--json", write(chat(store=True)))[1])["pass"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b'{"model":1}', b'{"a":1,"a":2}', b"\xff\xfe"]
)
def test_what_can_not_be_read_exits_2_and_names_the_file(
    run: Run, write: Write, body: bytes
) -> None:
    good, bad = write(chat()), write(body)
    for arguments in ([bad], [good, bad], [bad, good]):
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith(f"gateway key: {bad}: ")


def test_a_file_that_is_not_there_exits_2(run: Run, tmp_path: Path) -> None:
    for missing in ("nowhere.json", str(tmp_path)):
        status, out, err = run(missing)
        assert (status, out) == (2, "")
        assert missing in err


@pytest.mark.parametrize(
    "arguments", [["--route", "/v1/moderations"], ["--upstream", "nobody"], ["--route", "chat"]]
)
def test_a_route_or_upstream_that_is_not_there_exits_2_and_names_those_that_are(
    run: Run, write: Write, arguments: list[str]
) -> None:
    status, out, err = run(*arguments, write(chat()))
    assert (status, out) == (2, "")
    assert "there are: " in err


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ('{"a":1}', '{"a":2}', ("$.a", "1", "2")),
        ('{"a":1}', "{}", ("$.a", "1", "absent")),
        ("{}", '{"a":1}', ("$.a", "absent", "1")),
        ('{"a":[1,2]}', '{"a":[1]}', ("$.a", "2 items", "1 items")),
        ('{"a":[1,{"b":null}]}', '{"a":[1,{"b":0}]}', ("$.a[1].b", "null", "0")),
        ('{"a":{}}', '{"a":[]}', ("$.a", "{}", "[]")),
        ('{"a":1,"b":2}', '{"b":2,"a":1}', ("$.a", "member 'a' first", "member 'b' first")),
        ('{"x":1,"a":1}', '{"x":1,"b":1}', ("$.a", "1", "absent")),
        ("1.0", "1", ("$", "1.0", "1")),
    ],
)
def test_the_first_difference_is_found_where_it_is(
    left: str, right: str, expected: tuple[str, str, str]
) -> None:
    assert first_difference(parse(left.encode()), parse(right.encode())) == expected


def test_long_values_are_shortened() -> None:
    long = orjson.dumps("x" * 1000)
    path, one, other = first_difference(parse(long), parse(b'"y"'))
    assert (path, other) == ("$", '"y"')
    assert len(one) == 60
    assert one.endswith("…")
