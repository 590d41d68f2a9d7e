from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from gateway.telemetry.outlet import Outlet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TextIO

WAIT_S = 20.0
PIPE_BYTES = 64 * 1024


class Reader:
    """The other end of a pipe, which reads when it is told to."""

    def __init__(self) -> None:
        self.descriptor, into = os.pipe()
        self.stream: TextIO = os.fdopen(into, "w")
        self.lost: list[int] = []
        self.told = threading.Event()

    def tell(self, lines: int) -> None:
        self.lost.append(lines)
        self.told.set()

    def until(self, last: str) -> list[str]:
        """All lines up to that one."""
        data = b""
        while not data.endswith(last.encode() + b"\n"):
            data += os.read(self.descriptor, PIPE_BYTES)
        return data.decode().splitlines()

    def leave(self) -> None:
        os.close(self.descriptor)


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    with suppress(OSError):
        reader.leave()
    reader.stream.close()


def lines(count: int, size: int = 100) -> list[str]:
    return [f"{number:{size}}" for number in range(count)]


@pytest.mark.parametrize("size", [1, 100, 4095, 4096, 5000, 200_000])
def test_what_nobody_reads_yet_waits_and_comes_whole_and_in_order(
    reader: Reader, size: int
) -> None:
    outlet = Outlet(reader.stream, reader.tell)
    written = lines(min(600_000 // size, 10_000), size)
    for line in written:
        outlet.write(line + "\n")
    assert reader.until(written[-1]) == written
    assert outlet.drain(WAIT_S)
    # It goes straight there again.
    outlet.write("after\n")
    assert reader.until("after") == ["after"]
    assert (outlet.lost_lines, reader.lost) == (0, [])


def test_what_there_is_no_room_for_is_counted_and_told(reader: Reader) -> None:
    outlet = Outlet(reader.stream, reader.tell, kept_bytes=10_000)
    written = lines(2_000)
    for line in written:
        outlet.write(line + "\n")
    assert not outlet.drain(0)
    kept = len(written) - outlet.lost_lines
    assert PIPE_BYTES // 2 < kept * 101 <= PIPE_BYTES + 10_000 + 101
    # The first ones, without a gap.
    assert reader.until(written[kept - 1]) == written[:kept]
    assert reader.told.wait(WAIT_S)
    assert reader.lost == [outlet.lost_lines]
    outlet.write("after\n")
    assert reader.until("after") == ["after"]
    assert len(reader.lost) == 1


def test_many_threads_lose_nothing_and_tear_no_line(reader: Reader) -> None:
    outlet = Outlet(reader.stream, reader.tell)

    def write(name: str) -> None:
        for number in range(500):
            outlet.write(f"{name}{number:200}\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    seen = b""
    while seen.count(b"\n") < 2_000:
        seen += os.read(reader.descriptor, 10_000)
    for thread in threads:
        thread.join(WAIT_S)
    found = seen.decode().splitlines()
    for name in "abcd":
        assert [line for line in found if line[0] == name] == [
            f"{name}{number:200}" for number in range(500)
        ]


def test_a_reader_that_leaves_while_lines_wait_for_it_ends_the_wait(reader: Reader) -> None:
    outlet = Outlet(reader.stream, reader.tell)
    for line in lines(2_000):
        outlet.write(line + "\n")
    assert not outlet.drain(0)
    reader.leave()
    assert outlet.drain(WAIT_S)
    outlet.write("after\n")


def test_without_a_thread_what_waits_goes_with_the_next_line(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    outlet = Outlet(reader.stream, reader.tell)
    written = lines(1_000)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none)
        for line in written:
            outlet.write(line + "\n")
    outlet.write("next\n")
    assert reader.until("next") == [*written, "next"]


def test_a_file_gets_every_line_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as file:
        outlet = Outlet(file, lambda _: None)
        for line in ("ä", "\udc80", "x" * 10_000):
            outlet.write(line + "\n")
        assert path.read_bytes() == "ä\n\\udc80\n".encode() + b"x" * 10_000 + b"\n"


def test_the_number_of_a_closed_stream_is_not_written_to(tmp_path: Path) -> None:
    first = (tmp_path / "first").open("w")
    outlet = Outlet(first, lambda _: None)
    number = first.fileno()
    first.close()
    with (tmp_path / "second").open("w") as second:
        assert second.fileno() == number
        outlet.write("not yours\n")
    assert (tmp_path / "second").read_text() == ""
