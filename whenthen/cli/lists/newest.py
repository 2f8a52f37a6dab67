"""The word `last` in the place of an id: the newest thing of its kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from whenthen.cli.client import Client

__all__ = ["LAST", "Kind", "id_of"]

LAST: Final = "last"
Kind = Literal["actions", "events", "firings", "runs"]


def id_of(client: Client, kind: Kind, given: str) -> str:
    """The id of the newest one of a kind for `last`; anything else as it is, as the server takes shortened ids.

    Raises:
        NotFound: there is none yet.
    """
    if given != LAST:
        return given
    from whenthen.cli.client import ApiError
    from whenthen.schemas.errors import NotFound

    if kind == "events":  # who sends an event may have given it this id
        try:
            return str(client.get(f"/api/events/{LAST}")["id"])
        except ApiError as error:
            if error.status != 404:
                raise
    found = client.get(f"/api/{kind}", limit=1)
    if not found:
        raise NotFound(f"there are no {kind} yet")
    return str(found[0]["key" if kind == "actions" else "id"])
