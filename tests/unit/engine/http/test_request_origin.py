"""Which requests are taken for those of a page of another site."""

from __future__ import annotations

from typing import Any

import pytest

from whenthen.engine.http import RequestOrigin
from whenthen.engine.http.answers import HttpError

LOOPBACK = ("127.0.0.1", 4280)


def refusal(ours: RequestOrigin, server: Any = LOOPBACK, **headers: str) -> str | None:
    """The reason that a request with these headers is refused for; None when it is taken."""
    pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    try:
        ours.check({"headers": pairs, "server": server})
    except HttpError as error:
        return f"{error.reason}" if error.status == 403 else f"{error.status}"
    return None


def loopback() -> RequestOrigin:
    return RequestOrigin(
        host="127.0.0.1", port=4280, public_urls=("https://auto.example", "http://proxy:8080/whenthen")
    )


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:4280",
        "localhost:4280",
        "LOCALHOST.:4280",
        "[::1]:4280",
        "[0:0:0:0:0:0:0:1]:4280",
        "127.1.2.3:4280",
        "auto.example",
        "auto.example:443",
        "proxy:8080",
    ],
)
def test_the_names_of_this_server_are_taken(host: str) -> None:
    assert refusal(loopback(), host=host) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:4280",
        "127.0.0.1",
        "127.0.0.1:4281",
        "localhost.evil.example:4280",
        "127.0.0.1.evil.example:4280",
        "10.0.0.1:4280",
        "user@localhost:4280",
        "localhost:4280/",
        "localhost:4280, evil.example",
        "localhost:99999999",
        "",
        "[::1",
        "auto.example:80",
        "proxy",
        "lo\xe7alhost:4280",
    ],
)
def test_another_host_is_refused(host: str) -> None:
    assert refusal(loopback(), host=host) == "foreign_host"


def test_a_host_after_a_right_one_is_looked_at_too() -> None:
    origin = loopback()
    pairs = [(b"host", b"localhost:4280"), (b"host", b"evil.example")]
    with pytest.raises(HttpError, match="not an address of this server; ask for"):
        origin.check({"headers": pairs, "server": LOOPBACK})


def test_a_server_on_all_addresses_is_asked_by_the_address_of_the_connection() -> None:
    origin = RequestOrigin(host="0.0.0.0", port=4280)
    assert refusal(origin, ("10.0.0.7", 4280), host="10.0.0.7:4280") is None
    assert refusal(origin, ("10.0.0.7", 4280), host="10.0.0.8:4280") == "foreign_host"
    assert refusal(origin, ("10.0.0.8", 4280), host="10.0.0.7:4280") == "foreign_host"


@pytest.mark.parametrize("value", ["http://127.0.0.1:4280", "http://localhost:4280", "https://auto.example"])
def test_pages_of_this_server_are_taken(value: str) -> None:
    assert refusal(loopback(), host="127.0.0.1:4280", origin=value) is None


@pytest.mark.parametrize(
    "value",
    [
        "https://evil.example",
        "null",
        "",
        "https://127.0.0.1:4280",
        "http://auto.example",
        "http://localhost:3000",
        "x://y",
    ],
)
def test_pages_of_others_are_refused(value: str) -> None:
    assert refusal(loopback(), host="127.0.0.1:4280", origin=value) == "foreign_origin"


@pytest.mark.parametrize(("site", "found"), [("same-origin", None), ("none", None), ("None", None)])
def test_a_request_of_the_same_site_is_taken(site: str, found: str | None) -> None:
    assert refusal(loopback(), host="127.0.0.1:4280", sec_fetch_site=site) == found


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "same-origin, none", "x"])
def test_a_request_of_another_site_is_refused(site: str) -> None:
    assert refusal(loopback(), host="127.0.0.1:4280", sec_fetch_site=site) == "foreign_origin"


def test_a_client_that_is_no_browser_needs_none_of_the_three() -> None:
    assert refusal(loopback()) is None
