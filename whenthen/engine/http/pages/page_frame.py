"""What all pages share: who looks, the headers, what a refusal looks like, and the way to the login.

    frame = PageFrame(admission, version)
    router = frame.router()

    @router.get("/things")
    async def things(request: Request) -> Response:
        return frame.page(request, "things.html", things=await api.list_things())

A route of such a router needs a line in `access.route_scopes`, as any. Who has no session is led to the login and back.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse

from whenthen.engine.access import AccessScope, NotAdmitted
from whenthen.engine.audit import CALLER
from whenthen.engine.http.access.admission import Admission, Entry, read_form, who_asks
from whenthen.engine.http.access.route_scopes import ENTRY, ScopedRoute
from whenthen.engine.http.answers import HttpError, answer_of
from whenthen.engine.http.bodies import header
from whenthen.schemas.errors import NotFound, WhenthenError
from whenthen.sources import decode_json
from whenthen.ui import ASSETS, NAVIGATION, Place, page_url, render

__all__ = ["PAGE_HEADERS", "PageFrame", "asset_of", "is_page"]

#: no script, style, picture or request but ours, no frame around it, no form to elsewhere.
#: `same-origin`, as with `no-referrer` browsers send `Origin: null` with forms
PAGE_HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
_FOREVER = {"cache-control": "public, max-age=31536000, immutable", "x-content-type-options": "nosniff"}
MOST_SAID: Final = 1000  #: characters of what came of a form
_TITLES = {400: "That can not be read", 403: "Not allowed", 404: "Not found", 409: "Not now", 503: "Not reachable now"}
_NO_PAGES = ("/api", "/hooks/", "/metrics", "/healthz", "/readyz", "/openapi.json", "/asyncapi.json", "/ui/")


def is_page(path: str) -> bool:
    """Whether links of other sites may lead to what is at `path`."""
    return not path.startswith(_NO_PAGES)


class PageFrame:
    """Makes answers of templates."""

    def __init__(self, admission: Admission, version: str) -> None:
        self._admission = admission
        self._version = version

    def router(self) -> APIRouter:
        """A router whose routes answer with pages, also when they refuse."""
        frame = self

        class PageRoute(ScopedRoute):
            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                handle = super().get_route_handler()

                async def shown(request: Request) -> Response:
                    try:
                        return await handle(request)
                    except NotAdmitted:
                        return frame.to_login(request)
                    except RequestValidationError as error:
                        first = error.errors()[0]
                        field = ".".join(str(step) for step in first["loc"][1:])
                        return frame.trouble(
                            request, HttpError(400, "invalid_request", str(first["msg"]), path=(field,))
                        )
                    except WhenthenError as error:
                        return frame.trouble(request, error)

                return shown

        return APIRouter(route_class=PageRoute, include_in_schema=False)

    def page(self, request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
        """A template with these values."""
        return HTMLResponse(render(template, self.place(request), **values), status, headers=dict(PAGE_HEADERS))

    def place(self, request: Request) -> Place:
        """Where the page is, and who looks at it."""
        entry: Entry | None = request.scope.get(ENTRY)
        grant = None if entry is None else entry.grant
        return Place(
            path=request.scope["path"],
            parameters=dict(request.query_params),
            who="" if grant is None else grant.name,
            session=bool(grant is not None and grant.session),
            may_operate=bool(grant is not None and grant.allows(AccessScope.OPERATE)),
            forgery_token="" if grant is None else grant.forgery_token,
            version=self._version,
        )

    async def form(self, request: Request) -> Mapping[str, str]:
        """The fields of a form that was sent; who sent it is noted for the audit trail.

        Raises:
            HttpError: 400, 413.
        """
        entry: Entry = request.scope[ENTRY]
        CALLER.set(who_asks(entry.grant, self._admission.refusals.sender(request.scope)))
        read: Mapping[str, str] | None = getattr(request.state, "form", None)
        return await read_form(request, self._admission.budget) if read is None else read

    def see(self, path: str, **parameters: Any) -> Response:
        """After a form: the page that shows what it did. Asking for it again does nothing twice."""
        return RedirectResponse(page_url(path, **parameters), 303, headers=dict(PAGE_HEADERS))

    def tell(self, request: Request, path: str, said: str, **parameters: Any) -> Response:
        """The same, with what came of it in words. They are sealed for who sent the form: an address from elsewhere has this server say nothing."""
        said = said[:MOST_SAID]
        return self.see(path, **parameters, done=said, seal=self._seal(request, said))

    def told(self, request: Request, said: str, seal: str) -> str:
        """What `tell` has the page say; empty where it did not."""
        return said if said and hmac.compare_digest(seal.encode(), self._seal(request, said).encode()) else ""

    def _seal(self, request: Request, said: str) -> str:
        return hmac.digest(self.place(request).forgery_token.encode(), said.encode(errors="replace"), "sha256").hex()[
            :32
        ]

    def to_login(self, request: Request) -> Response:
        """Lead to the login, and from there back to this page, or to the one whose form was sent."""
        if request.method != "GET":
            return self.see("/login", next=_sent_from(request))
        path, query = request.scope["path"], request.scope["query_string"].decode("latin-1")
        target = f"{path}?{query}" if query else path
        if header(request.scope, b"sec-fetch-site") == "cross-site":
            # from a link of another site a browser sends no cookie with `SameSite=Strict`; from this page it does
            values = {"title": "whenthen", "message": "", "next": "/", "onward": target}
            return HTMLResponse(render("login.html", self.place(request), **values), headers=dict(PAGE_HEADERS))
        return RedirectResponse(f"/login?{urlencode({'next': target})}", 303, headers=dict(PAGE_HEADERS))

    def trouble(self, request: Request, error: WhenthenError) -> Response:
        """A refusal as a page."""
        answer = answer_of(error)
        told = decode_json(answer.body)["error"]
        title = _TITLES.get(answer.status, "That failed" if answer.status >= 500 else "Refused")
        return self.page(
            request, "trouble.html", status=answer.status, title=title, message=told["message"], field=told["field"],
            near=self._near(request, error),
        )  # fmt: skip

    def no_page(self, request: Request) -> Response:
        """The answer where there is no page: which addresses may have been meant."""
        path = request.scope["path"]
        pages = [path for path, _ in NAVIGATION]
        return self.trouble(request, NotFound(f"there is no page at {path[:200]}", word=path, among=pages))

    def _near(self, request: Request, error: WhenthenError) -> list[tuple[str, str]]:
        """Address and name of what may have been meant: this page with another name in its parameter, or another page."""
        if not isinstance(error, NotFound):
            return []
        if error.word == request.scope["path"]:
            return [(path, word) for path, word in NAVIGATION if path in error.near]
        parameter = next((key for key, value in request.query_params.items() if value.strip() == error.word), None)
        return (
            [] if parameter is None else [(self.place(request).with_(**{parameter: name}), name) for name in error.near]
        )


def _sent_from(request: Request) -> str:
    """Path and query of the page whose form was sent; empty where that is not told, or of another site."""
    try:
        page = urlsplit(header(request.scope, b"referer") or "")
    except ValueError:
        return ""
    return (
        page._replace(scheme="", netloc="", fragment="").geturl()
        if page.netloc == header(request.scope, b"host")
        else ""
    )


def asset_of(name: str) -> Response:
    """A file that pages refer to.

    Raises:
        NotFound: there is none.
    """
    asset = ASSETS.get(name)
    if asset is None:
        raise NotFound("no page refers to such a file")
    return Response(asset.content, media_type=asset.type, headers=_FOREVER)
