"""Which requests of browsers the admin port takes: as each kind of request comes from a browser."""

from __future__ import annotations

import pytest

from gateway.server.browsers import DATA, PAGE, admitted

OURS = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "same-origin", "Sec-Fetch-Dest": "empty"}
OPENED = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
READS = [DATA + "summary", DATA + "requests", DATA + "requests/{id}"]


@pytest.mark.parametrize("route", [PAGE, *READS, "/admin/stats", "/admin/cache/purge"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_who_is_no_browser_is_none_of_its_business(method: str, route: str) -> None:
    assert admitted(method, route, {"User-Agent": "curl/8"})
    assert not admitted(method, route, {"Origin": "http://127.0.0.1:9181"})
    assert not admitted(method, route, {"Origin": "null"})


@pytest.mark.parametrize("site", ["none", "same-origin", "same-site", "cross-site"])
def test_the_page_can_be_opened_from_anywhere_but_not_framed_or_fetched(site: str) -> None:
    said = {"Sec-Fetch-Site": site}
    assert admitted("GET", PAGE, {**said, **OPENED})
    if site == "none":
        return
    for dest in ("iframe", "frame", "embed", "object"):
        assert not admitted("GET", PAGE, {**said, **OPENED, "Sec-Fetch-Dest": dest})
    assert not admitted("GET", PAGE, {**said, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"})
    assert not admitted("POST", PAGE, {**said, **OPENED})
    assert not admitted("GET", PAGE, said)


@pytest.mark.parametrize("route", READS)
def test_the_page_reads_its_own_data_and_no_other_page_does(route: str) -> None:
    assert admitted("GET", route, OURS)
    assert admitted("GET", route, {**OURS, "Sec-Fetch-Mode": "cors"})
    for site in ("same-site", "cross-site"):
        assert not admitted("GET", route, {**OURS, "Sec-Fetch-Site": site})
    for mode in ("no-cors", "navigate", "websocket"):
        assert not admitted("GET", route, {**OURS, "Sec-Fetch-Mode": mode})
    for dest in ("script", "image", "style", "document", "iframe"):
        assert not admitted("GET", route, {**OURS, "Sec-Fetch-Dest": dest})
    assert not admitted("GET", route, {**OURS, "Origin": "http://evil.example"})


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("route", [PAGE, *READS, "/admin/cache/purge", "/admin/backends"])
def test_nothing_changes_anything_for_a_browser(method: str, route: str) -> None:
    assert not admitted(method, route, OURS)
    assert not admitted(method, route, {**OURS, "Origin": "http://127.0.0.1:9181"})


@pytest.mark.parametrize(
    "route", ["/admin/stats", "/admin/savings", "/admin/explain", "/{anything}", ""]
)
def test_what_the_page_does_not_ask_for_is_for_no_browser(route: str) -> None:
    assert not admitted("GET", route, OURS)
    assert not admitted("GET", route, {**OPENED, "Sec-Fetch-Site": "cross-site"})
