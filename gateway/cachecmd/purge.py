"""`gateway cache purge`: a rehearsal, unless told to do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from typing import BinaryIO

    from gateway.cachecmd.desk import Desk, Wanted

OK = 0


async def purge(
    desk: Desk, wanted: Wanted, out: BinaryIO, *, as_json: bool, yes: bool, reclaim: bool
) -> int:
    """Say how much is selected; with `yes` kill it, and with `reclaim` make room at once."""
    told = await desk.purge(wanted, dry_run=not yes)
    if yes and reclaim:
        told["reclaimed"] = await desk.reclaim()
    if as_json:
        out.write(orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE))
        return OK
    about = "" if told["exact"] else "about "
    noun = "entry" if told["exact"] and told["entries"] == 1 else "entries"
    what = f"{told['what']}: {about}{told['entries']:,} {noun}"
    if not yes:
        out.write(f"{what} would be purged; say --yes to do it\n".encode())
        return OK
    out.write(f"{what} purged\n".encode())
    if reclaim:
        out.write(f"{told['reclaimed']:,} deleted to make room\n".encode())
    return OK
