"""The command line's side of the HTTP API: where the server is, one request, and what an error means for people.

Imported by commands when they run, as it imports much. The address comes from `--url` or `WHENTHEN_URL`, the token from
`WHENTHEN_API_TOKEN` (itself, or a reference to it: `env:NAME`, `file:/path`), else from what a server of this user has noted
for the address (`cli.token_files`); a token is never an argument, as arguments are seen by everybody on the machine.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from whenthen.cli.options import DEFAULT_URL, MAX_PAGE
from whenthen.cli.token_files import find_token
from whenthen.schemas.errors import InvalidInput, SetupError, WhenthenError
from whenthen.schemas.trace_context import TRACE_HEADERS, read_trace, trace_headers

__all__ = ["ApiError", "Client", "Unreachable", "api_token", "quoted"]

TIMEOUT_S = 30.0
DOWNLOAD_BYTES = 1 << 20  #: of a part of a download


class Unreachable(WhenthenError):
    """No server answers at the address."""

    reason = "unreachable"


class ApiError(WhenthenError):
    """The server refused a request. `reason` and `status` are those of its answer."""

    def __init__(self, status: int, reason: str, message: str, body: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.body = body  #: the whole answer


def api_token(environment: Mapping[str, str] | None = None) -> str | None:
    """The token of the environment, with a reference followed.

    Raises:
        SetupError: what the reference names can not be read.
    """
    environment = os.environ if environment is None else environment
    written = environment.get("WHENTHEN_API_TOKEN") or None
    if written is not None and written.startswith("env:"):
        found = environment.get(written[4:])
        if not found:
            raise SetupError(f"WHENTHEN_API_TOKEN: {written} is empty or not set")
        return found
    if written is not None and written.startswith("file:"):
        try:
            return Path(written[5:]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SetupError(f"WHENTHEN_API_TOKEN: {written} can not be read: {type(error).__name__}") from None
    return written


class Client:
    """Requests to one server. Use it as a context manager."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        ca: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.notes: list[str] = []  #: what the server said of its answers, each once
        self.url = url.rstrip("/") if "://" in url else f"http://{url.rstrip('/')}"
        headers = _trace()
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            # the environment's proxies are for the outside; a server of one's own is asked directly
            self._http = httpx.Client(
                base_url=self.url,
                headers=headers,
                timeout=TIMEOUT_S,
                transport=transport,
                trust_env=False,
                # authorities are read for 20 ms, and nobody shows a certificate over plain HTTP; redirects are not followed
                verify=_trusted(ca) if ca or self.url.lower().startswith("https:") else False,
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise SetupError(f"--url {url[:200]!r} is not an address: {error}; write {DEFAULT_URL}") from None

    @classmethod
    def connect(cls, url: str, ca: str | None = None) -> Client:
        """A client with the token of the environment, else with the one that the server at `url` noted for this user.

        `ca` is a file with the authorities that are trusted; None means the public ones.
        """
        return cls(url, token=api_token() or find_token(url), ca=ca)

    def get(self, path: str, **query: Any) -> Any:
        """The JSON answer of a GET. Parameters that are None are left out. Raises `ApiError`, `Unreachable`."""
        return self._ask("GET", path, params=_given(**query))

    def whole(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Items of a list that has no limit, answer by answer as long as there is a `Link` to more."""
        parameters: Any = _given(**query)
        while True:
            response = self._send("GET", path, params=parameters)
            yield from _body(response)
            if "next" not in response.links:
                return
            parameters = httpx.URL(response.links["next"]["url"]).params

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """The JSON answer of a POST. Raises `ApiError`, `Unreachable`."""
        content = None if body is None else orjson.dumps(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        return self._ask("POST", path, params=_given(**query), content=content, headers=headers)

    def pages(self, path: str, *, limit: int, **query: Any) -> Iterator[dict[str, Any]]:
        """Items of a listing, newest first, page by page up to `limit`."""
        before: str | None = None
        while limit > 0:
            size = min(limit, MAX_PAGE)
            self.notes.clear()  # what was said of a page before does not hold of all
            response = self._send("GET", path, params=_given(limit=size, before=before, **query))
            items = _body(response)
            if before is not None and before.isdecimal() and items and items[0].get("seq", 0) >= int(before):
                return  # the listing has no further pages
            yield from items
            limit -= len(items)
            if "next" in response.links:  # cut for its size
                following = httpx.URL(response.links["next"]["url"]).params.get("before")
                if following is None or following == before:
                    return
                before = following
                continue
            if len(items) < size or "seq" not in items[-1]:
                return
            before = str(items[-1]["seq"])

    def download(self, path: str) -> Iterator[bytes]:
        """The body of a GET, a part at a time. One that ends without an error may still not be whole. Raises `ApiError`,
        `Unreachable`."""
        with self._reached(), self._http.stream("GET", path) as response:
            if not response.is_success:
                response.read()
                raise self._error(response, _body(response))
            yield from response.iter_raw(DOWNLOAD_BYTES)

    def stream(self, path: str, *, headers: Mapping[str, str], silent_s: float, **query: Any) -> Iterator[bytes]:
        """The body of a GET that has no end, as it comes. `silent_s` without anything means that the connection is gone. Raises
        `ApiError`, `Unreachable`."""
        timeout = httpx.Timeout(TIMEOUT_S, read=silent_s)
        with (
            self._reached(),
            self._http.stream("GET", path, params=_given(**query), headers=headers, timeout=timeout) as response,
        ):
            if not response.is_success:
                response.read()
                raise self._error(response, _body(response))
            yield from response.iter_bytes()

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        return _body(self._send(method, path, **options))

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        with self._reached():
            response = self._http.request(method, path, **options)
        body = _body(response)
        self.notes += [note for note in response.headers.get_list("whenthen-note") if note not in self.notes]
        if response.is_success and (body is not None or not response.content):
            return response
        raise self._error(response, body)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Errors of a connection as ours."""
        try:
            yield
        except httpx.InvalidURL as error:  # of the words given, as `connect` has looked at the address of the server
            raise InvalidInput(
                f"nobody can be asked for this ({error}); ask for less, or look at what was given"
            ) from None
        except httpx.TimeoutException:
            raise Unreachable(f"{self.url} did not answer within {TIMEOUT_S:.0f} seconds") from None
        except httpx.UnsupportedProtocol:
            raise SetupError(f"--url {self.url}: the address starts with http:// or https://") from None
        except httpx.RemoteProtocolError as error:
            raise Unreachable(
                f"{self.url} ended the connection before its answer was whole: {error}; see its log"
            ) from None
        except httpx.TransportError as error:
            if any(isinstance(beneath, ssl.SSLCertVerificationError) for beneath in _beneath(error)):
                raise Unreachable(
                    f"the certificate of {self.url} is not trusted ({error}); name its authority with --ca or WHENTHEN_CA"
                ) from None
            raise Unreachable(
                f"no server answers at {self.url} ({_cause(error)}); start one with `whenthen serve RULES`, "
                "or name another with --url or WHENTHEN_URL"
            ) from None

    def _error(self, response: httpx.Response, body: Any) -> ApiError:
        found = body.get("error") if isinstance(body, dict) else None
        if not isinstance(found, dict):
            if isinstance(body, dict) and body.get("problems"):  # of rules that were not taken
                problems = "\n".join(map(_problem, body["problems"]))
                return ApiError(response.status_code, "invalid_rules", problems, body)
            message = (
                f"{self.url} answered {response.status_code} and not as whenthen does; "
                "is another program behind this address? Check --url"
            )
            return ApiError(response.status_code, "not_whenthen", message, {})
        reason, message = str(found.get("reason", "error")), str(found.get("message", ""))
        if found.get("field"):
            message = f"{found['field']}: {message}"
        if response.status_code == 401:
            message += (
                "; set WHENTHEN_API_TOKEN to the server's API token: the file api-token in its data directory, unless it "
                "was given one (commands of the user who runs it find the token themselves)"
            )
        elif response.status_code == 503:
            message += f"; try again in {response.headers.get('retry-after', 'a few')} seconds"
        return ApiError(response.status_code, reason, f"{message} ({reason})", body)


def _given(**query: Any) -> dict[str, Any]:
    """Parameters without those that are None."""
    return {name: value for name, value in query.items() if value is not None}


def _body(response: httpx.Response) -> Any:
    """The JSON of an answer; None when there is none."""
    try:
        return orjson.loads(response.content) if response.content else None
    except orjson.JSONDecodeError:
        return None


def _trusted(path: str | None) -> ssl.SSLContext | bool:
    """The authorities whose servers are trusted: those of the file at `path`, else the public ones.

    Raises:
        SetupError: the file can not be read, or holds none.
    """
    if not path:
        return True
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # those of TLS are of this kind, too
        raise SetupError(
            f"--ca (WHENTHEN_CA): {path}: {error.strerror or error}; name a file of PEM certificates"
        ) from None


def _trace() -> dict[str, str]:
    """The trace that the command is part of, as in a flow run or below a tracing shell: sent on as it is."""
    found = {name: os.environ.get(name.upper(), "") for name in TRACE_HEADERS}
    trace = read_trace([found["traceparent"]], [found["tracestate"]])
    return {} if trace is None else trace_headers(trace)


def quoted(name: str) -> str:
    """A name as one step of a path; one of dots alone is encoded, too, as it would be a step back."""
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


def _problem(problem: Any) -> str:
    if not isinstance(problem, dict):
        return str(problem)
    where = ":".join(str(problem[part]) for part in ("file", "line", "column") if problem.get(part))
    field = f"{problem['field']}: " if problem.get("field") else ""
    return f"{where}: {field}{problem.get('message', '')}"


def _beneath(error: BaseException) -> Iterator[BaseException]:
    """What led to the error, the nearest first."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _cause(error: BaseException) -> str:
    """The error of the system beneath, which says more than `All connection attempts failed`."""
    deepest = error
    for deepest in _beneath(error):
        if isinstance(deepest, OSError) and deepest.strerror:
            return deepest.strerror.lower()
    return str(deepest) or type(deepest).__name__
