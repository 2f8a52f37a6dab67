"""One HTTP request to a whenthen server, with nothing but the standard library: the SDK brings no HTTP client into user code.

The address is `WHENTHEN_URL`; the token is `WHENTHEN_API_TOKEN`, itself or a reference (`env:NAME`, `file:/path`), else the one that a server
of this user has noted for the address.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from whenthen.flows.flow_errors import ConfigurationError, ObjectNotFound, ServerError
from whenthen.flows.services.environment_values import secret_of
from whenthen.flows.unsupported import needs_server
from whenthen.noted_tokens import TokenFileError, find_token

__all__ = ["ServerAddress", "part"]

TIMEOUT_S = 30.0
MAX_ANSWER_BYTES = 64 << 20
NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')
MAX_SHOWN_CHARS = 500  #: of an answer that is no JSON


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would send the token elsewhere."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class ServerAddress:
    """Where a server is, and how it is asked. Safe between threads."""

    def __init__(self, url: str, token: str | None) -> None:
        split = urlsplit(url if "://" in url else f"http://{url}")
        if split.scheme not in ("http", "https") or not split.hostname:
            raise ConfigurationError(
                f"WHENTHEN_URL={url!r:.200} is not an address; write http://127.0.0.1:4280 for example"
            )
        self.url = split.geturl().rstrip("/")
        self._token = token
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())

    @classmethod
    def of_environment(cls, what: str = "get_client") -> ServerAddress:
        """
        Raises:
            NeedsServer: `WHENTHEN_URL` is not set.
        """
        url = os.environ.get("WHENTHEN_URL")
        if not url:
            raise needs_server(what)
        return cls.at(url)

    @classmethod
    def at(cls, url: str) -> ServerAddress:
        """The server at `url`, with the token that is known for it."""
        return cls(url, _token(url))

    @property
    def has_token(self) -> bool:
        return self._token is not None

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of an answer.

        Raises:
            ObjectNotFound: there is no such thing.
            ServerError: no server answers, or it refuses.
        """
        return self._ask("GET", _with_query(path, query), None)[0]

    def listed(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """The items of a list, page by page, as long as there is a `Link` to more. Raises as `get` does."""
        following: str | None = _with_query(path, query)
        while following is not None:
            page, link = self._ask("GET", following, None)
            yield from page
            found = NEXT.search(link)
            # the query alone: the next page is asked of the same server, whatever the link says
            following = None if found is None else f"{path}?{urlsplit(found[1]).query}"

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of an answer. Raises as `get` does."""
        return self._ask("POST", path, body)[0]

    def post_json(self, path: str, data: bytes) -> Any:
        """The JSON of an answer to a body that is JSON already. Raises as `get` does."""
        return self._request("POST", path, data)[0]

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[Any, str]:
        """The JSON of an answer, and its header `Link`."""
        try:
            data = None if body is None else json.dumps(body).encode()
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{method} {path}: parameters of a run are JSON: {error}") from None
        return self._request(method, path, data)

    def _request(self, method: str, path: str, data: bytes | None) -> tuple[Any, str]:
        headers = {"Content-Type": "application/json"} if data else {}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(f"{self.url}{path}", data=data, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                return self._json(response.read(MAX_ANSWER_BYTES + 1), path), response.headers.get("Link") or ""
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error, path) from None
        except (OSError, urllib.error.URLError) as error:
            why = getattr(error, "reason", None) or error
            raise ServerError(
                f"no server answers at {self.url} ({why}); start one with `whenthen serve RULES`, or set WHENTHEN_URL"
            ) from None

    def _json(self, content: bytes, path: str) -> Any:
        if len(content) > MAX_ANSWER_BYTES:
            raise ServerError(f"{self.url}{path}: the answer is larger than {MAX_ANSWER_BYTES:,} bytes; ask for less")
        try:
            return json.loads(content) if content else None
        except ValueError:
            raise ServerError(
                f"{self.url}{path}: the answer is no JSON; is another program behind this address?"
            ) from None

    def _refusal(self, error: urllib.error.HTTPError, path: str) -> Exception:
        text = error.read(MAX_ANSWER_BYTES).decode(errors="replace")
        reason = ""
        try:
            found = json.loads(text)["error"]
            reason = str(found.get("reason") or "")
            message = f"{found['field']}: {found['message']}" if found.get("field") else str(found["message"])
        except (ValueError, KeyError, TypeError, AttributeError):
            message = text[:MAX_SHOWN_CHARS]
        if error.code == 404:
            return ObjectNotFound(f"{self.url}{path}: {message}")
        if error.code == 401:
            message += "; set WHENTHEN_API_TOKEN to the server's API token"
        refused = ServerError(f"{self.url}{path}: {error.code}: {message}")
        refused.status = error.code
        refused.answered = reason
        return refused


def _with_query(path: str, query: dict[str, Any]) -> str:
    given = {key: value for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def part(text: str) -> str:
    """A name as one part of a path."""
    return quote(text, safe="")


def _token(url: str) -> str | None:
    written = os.environ.get("WHENTHEN_API_TOKEN") or None
    if written is None:
        try:
            return find_token(url)
        except TokenFileError as error:
            raise ConfigurationError(str(error)) from None
    if written.startswith(("env:", "file:")):
        return secret_of(written, "WHENTHEN_API_TOKEN").strip()
    return written
