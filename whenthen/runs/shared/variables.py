"""Variables: named JSON values that flows, people and rules' deployments share. What one may be, and changing one beside others who do.

Called by a worker for its runs (`reports.shared_requests`) and by the API. Meaning: docs/flows.md, "Variables, secrets and limits".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from whenthen.schemas.base import MAX_DEPTH, is_deeper_than
from whenthen.schemas.errors import Conflict, InvalidInput, NotFound
from whenthen.schemas.times import format_time

if TYPE_CHECKING:
    from whenthen.runs.stores import VariableStore

__all__ = ["MAX_VALUE_CHARS", "MOST_VARIABLES", "VariableRecord", "Variables"]

MAX_NAME_CHARS: Final = 255
MAX_VALUE_CHARS: Final = 5000  #: as JSON, as `flows.services.named_variables` has it
MOST_VARIABLES: Final = 5000
MOST_TAGS: Final = 50
MAX_TAG_CHARS: Final = 200
_NAME: Final = re.compile(r"[a-z0-9_-]+")
_TRIES: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableRecord:
    """A variable as it is kept."""

    name: str
    value: Any
    tags: tuple[str, ...] = ()
    changed: str  #: RFC 3339
    by: str = ""  #: `run:<id>`, or `api`


class Variables:
    """The variables of the server. Any number of processes may change them."""

    def __init__(self, store: VariableStore, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    async def get(self, name: str) -> VariableRecord | None:
        """
        Raises:
            InvalidInput: it is no name of a variable.
        """
        found = await self._store.get(checked_name(name))
        return None if found is None else found[0]

    async def all(self) -> list[VariableRecord]:
        """Every variable, by name."""
        return await self._store.all()

    async def set(self, name: str, value: Any, *, tags: Any = (), overwrite: bool = False, by: str) -> VariableRecord:
        """Keep a value. Of two that set one name at once the last one counts with `overwrite`, and without it the first.

        Raises:
            InvalidInput: name, value or tags are none, or too large, or there are too many. Conflict: there is one.
        """
        record = VariableRecord(
            name=checked_name(name),
            value=_checked_value(value),
            tags=_checked_tags(tags),
            changed=format_time(self._clock()),
            by=by,
        )
        for _ in range(_TRIES):
            found = await self._store.get(name)
            if found is not None and not overwrite:
                raise Conflict(f"there is a variable {name!r} already; to change it, set it with overwrite")
            if found is None and await self._store.count() >= MOST_VARIABLES:
                raise InvalidInput(f"there are {MOST_VARIABLES:,} variables, and no more are kept; unset one first")
            try:
                await self._store.put(record, 0 if found is None else found[1])
            except Conflict:
                continue
            return record
        raise Conflict(f"variable {name!r} keeps changing; try again")

    async def unset(self, name: str) -> bool:
        """Forget a variable. Gives whether there was one.

        Raises:
            InvalidInput: it is no name of a variable.
        """
        for _ in range(_TRIES):
            found = await self._store.get(checked_name(name))
            if found is None:
                return False
            try:
                await self._store.delete(name, found[1])
            except Conflict:
                continue
            return True
        raise Conflict(f"variable {name!r} keeps changing; try again")

    async def of_name(self, name: str) -> VariableRecord:
        """As `get`, for those who need it.

        Raises:
            InvalidInput: it is no name of a variable. NotFound: there is none.
        """
        found = await self.get(name)
        if found is None:
            raise NotFound(f"there is no variable {name!r}; `whenthen variables` lists them")
        return found


def checked_name(name: Any) -> str:
    """
    Raises:
        InvalidInput: it is no name of a variable.
    """
    if not isinstance(name, str) or len(name) > MAX_NAME_CHARS or _NAME.fullmatch(name) is None:
        raise InvalidInput(
            f"the name of a variable has lowercase letters, digits, dashes and underscores, at most {MAX_NAME_CHARS}; "
            f"found {str(name)[:80]!r}",
            path=("name",),
        )
    return name


def _checked_value(value: Any) -> Any:
    if is_deeper_than(value, MAX_DEPTH):
        raise InvalidInput(f"nested more than {MAX_DEPTH} deep; flatten it", path=("value",))
    try:
        size = len(orjson.dumps(value).decode())
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"not JSON: {error}", path=("value",)) from None
    if size > MAX_VALUE_CHARS:
        raise InvalidInput(
            f"{size:,} characters as JSON; a variable has at most {MAX_VALUE_CHARS:,}; keep it in a file, and its place in the variable",
            path=("value",),
        )
    return value


def _checked_tags(tags: Any) -> tuple[str, ...]:
    if not isinstance(tags, list | tuple) or len(tags) > MOST_TAGS or not all(isinstance(tag, str) for tag in tags):
        raise InvalidInput(f"a list of at most {MOST_TAGS} texts", path=("tags",))
    if longest := [tag for tag in tags if len(tag) > MAX_TAG_CHARS]:
        raise InvalidInput(f"{longest[0][:80]!r}... has more than {MAX_TAG_CHARS} characters", path=("tags",))
    return tuple(tags)
