"""`url_of`: the address of the page about a firing, an event, an automation or a run, for messages to people. Pure.

A variable of the templates of send-notification and of the body of call-webhook. Meaning: docs/actions.md, "Links to pages".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from whenthen.schemas.errors import RenderError

__all__ = ["URL_OF", "url_of"]

#: the variable's name
URL_OF = "url_of"
#: path and parameter of the page about a resource of the engine's own, by what its id begins with
_RESOURCES = {
    "whenthen.automation.": ("/automation", "name"),
    "whenthen.deployment.": ("/runs", "deployment"),
    "whenthen.event.": ("/event", "id"),
    "whenthen.firing.": ("/firing", "id"),
    "whenthen.flow-run.": ("/run", "id"),
    "whenthen.work-pool.": ("/runs", "work_pool"),
}
_TAKES = "it takes firing, event, automation (or another automation's name), and a resource of the engine's own, such as event.resource of a run's event"


def url_of(base: str | None, thing: Any) -> str:
    """The address of the page about `thing`, below `base`, where the pages are.

    Raises:
        RenderError: there is no page about it, or it is not known where the pages are.
    """
    if base is None:
        raise RenderError(
            "url_of needs the setting public_url (WHENTHEN_PUBLIC_URL), which is not set where this action is performed"
        )
    path, parameter, name = _page(thing)
    return f"{base.rstrip('/')}{path}?{urlencode({parameter: name}, errors='replace')}"


def _page(thing: Any) -> tuple[str, str, str]:
    if isinstance(thing, str) and thing:
        return _of_resource(thing) or ("/automation", "name", thing)
    if isinstance(thing, Mapping) and isinstance(name := thing.get("id"), str):
        if "automation" in thing and "state" in thing:
            return "/firing", "id", name
        if "event" in thing and "resource" in thing:
            return "/event", "id", name
        if (found := _of_resource(name)) is not None:
            return found
        raise RenderError(f"url_of: there is no page about {name[:200]!r}; {_TAKES}")
    found_kind = "null, as time fired and no event did" if thing is None else type(thing).__name__
    raise RenderError(f"url_of: found {found_kind}; {_TAKES}")


def _of_resource(id: str) -> tuple[str, str, str] | None:
    return next(
        (
            (path, parameter, id.removeprefix(begin))
            for begin, (path, parameter) in _RESOURCES.items()
            if id.startswith(begin)
        ),
        None,
    )
