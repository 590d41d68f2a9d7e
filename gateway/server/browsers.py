"""Which requests of web browsers the admin port answers: those of its own page, and no others.

A browser says for whom it asks (Fetch Metadata: `Sec-Fetch-Site`, `-Mode`, `-Dest`; `Origin`), and no
page can make it say anything else. So whatever another site's page has it do is refused here, on this
host's other ports as well: those are of the same site, but of another origin.
Rule 1: opened in a tab, from anywhere: the page itself, which holds no data.
Rule 2: asked for by that page: its own data, to read.
Rule 3: nothing that changes anything, whoever asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE = "/admin/"
DATA = "/admin/page/"
"""What the page asks for begins with it."""

_READS = frozenset(("GET", "HEAD"))


def admitted(method: str, route: str, headers: Mapping[str, str]) -> bool:
    """May this request be answered, as far as browsers go? `route` is the path as the router knows
    it. Who is no browser says nothing of itself, nor does one whose user typed the address.
    """
    site = headers.get("Sec-Fetch-Site", "none")
    # (Reading from its own origin, a browser sends no Origin.)
    if "Origin" in headers:
        return False
    if site == "none":
        return True
    mode, to = headers.get("Sec-Fetch-Mode", ""), headers.get("Sec-Fetch-Dest", "")
    if method not in _READS:
        return False
    if route == PAGE:
        return mode == "navigate" and to == "document"
    return (
        route.startswith(DATA)
        and site == "same-origin"
        and mode in {"cors", "same-origin"}
        and to == "empty"
    )
