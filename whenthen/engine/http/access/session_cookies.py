"""The cookie of a session: what it is called, how it is found in a request, set and taken away.

Browsers keep cookies by host and not by port, so its name has the port that the browser asked for. Over HTTPS it is `__Host-...`, which no
other host and no plain connection can set.
"""

from __future__ import annotations

from datetime import UTC, datetime

from whenthen.engine.access import NewSession
from whenthen.engine.http.answers import HttpError, Scope
from whenthen.engine.http.bodies import header
from whenthen.engine.http.request_origin import RequestOrigin

__all__ = ["cookie_ended", "cookie_set", "session_cookie"]

MOST_COOKIES = 200  #: of a request, that are looked at


def session_cookie(scope: Scope, origin: RequestOrigin | None) -> str | None:
    """The value of the session's cookie; None when there is none.

    Raises:
        HttpError: 400, there are several: another server of this host, or a page of one, has set one.
    """
    wanted = _name(scope, origin)
    found = set()
    for key, value in scope["headers"]:
        if key == b"cookie":
            for pair in value.decode("latin-1").split(";")[:MOST_COOKIES]:
                name, _, text = pair.strip().partition("=")
                if name == wanted:
                    found.add(text.strip('" '))
    if len(found) > 1:
        raise HttpError(
            400,
            "invalid_request",
            f"the cookie {wanted} comes with several values; delete the cookies of this site, and log in again",
        )
    return found.pop() if found else None


def cookie_set(session: NewSession, scope: Scope, origin: RequestOrigin | None) -> str:
    """The `Set-Cookie` that begins a session."""
    assert session.grant.expires is not None
    left_s = max(1, int((session.grant.expires - datetime.now(UTC)).total_seconds()))
    return f"{_name(scope, origin)}={session.cookie}; Max-Age={left_s}; {_attributes(scope, origin)}"


def cookie_ended(scope: Scope, origin: RequestOrigin | None) -> str:
    """The `Set-Cookie` that takes it away."""
    return f"{_name(scope, origin)}=; Max-Age=0; {_attributes(scope, origin)}"


def _attributes(scope: Scope, origin: RequestOrigin | None) -> str:
    return "Path=/; HttpOnly; SameSite=Strict" + ("; Secure" if _secure(scope, origin) else "")


def _name(scope: Scope, origin: RequestOrigin | None) -> str:
    port = (header(scope, b"host") or "").rpartition("]")[2].partition(":")[2]
    name = f"whenthen-{port}" if port.isascii() and port.isdigit() else "whenthen"
    return f"__Host-{name}" if _secure(scope, origin) else name


def _secure(scope: Scope, origin: RequestOrigin | None) -> bool:
    return origin.is_secure(scope) if origin is not None else scope.get("scheme") == "https"
