"""Which providers are there? Those of the package, one file each, and those of the rules, which may extend them.

Called by `sources.translator`, by the checks of rules and by `whenthen providers`. A file is read when its name is first asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import ValidationError

from whenthen.schemas.errors import InvalidInput, did_you_mean
from whenthen.schemas.providers import Provider

__all__ = ["builtin_names", "builtin_provider", "find_provider"]

MOST_EXTENDED = 10  #: providers that extend one another
_FOLDER = files("whenthen.sources") / "providers"
_MERGED = ("resource", "labels_by_kind")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@lru_cache(maxsize=1)
def builtin_names() -> tuple[str, ...]:
    """The names of the package's own providers, sorted."""
    return tuple(sorted(file.name.removesuffix(".yaml") for file in _FOLDER.iterdir() if file.name.endswith(".yaml")))


@lru_cache(maxsize=256)
def builtin_provider(name: str) -> Provider:
    """One of the package's own, as its file has it. `name` is one of `builtin_names()`."""
    return Provider.model_validate(yaml.load((_FOLDER / f"{name}.yaml").read_bytes(), Loader=_LOADER))


def find_provider(name: str, own: Mapping[str, Provider] | None = None) -> Provider:
    """The provider of this name with everything that it extends. `own` are those of the rules; they win over the package's.

    Raises:
        InvalidInput: there is none, it extends what is not there or itself, or it is not whole; its path is `("preset",)` or
            `("extends",)`.
    """
    own = own or {}
    return _whole(_named(name, own, "preset"), own)


def _named(name: str, own: Mapping[str, Provider], field: str) -> Provider:
    found = own.get(name)
    if found is not None:
        return found
    if name in builtin_names():
        return builtin_provider(name)
    known = sorted({*own, *builtin_names()})
    raise InvalidInput(
        f"no provider is named {name[:80]!r}{did_you_mean(name, known)}; `whenthen providers` lists them", path=(field,)
    )


def _whole(provider: Provider, own: Mapping[str, Provider]) -> Provider:
    chain = [provider]
    while (base := chain[-1].extends) is not None:
        # of its own name it extends the package's
        found = _named(base, own if base != chain[-1].name else {}, "extends")
        if found in chain or len(chain) > MOST_EXTENDED:
            raise InvalidInput(
                f"{provider.name!r} extends itself, through {base!r}; name a provider that is whole", path=("extends",)
            )
        chain.append(found)
    if len(chain) == 1:
        return provider
    data: dict[str, Any] = {}
    for each in reversed(chain):
        given = each.model_dump(exclude_unset=True, exclude={"extends", "samples", "automations"})
        for field in _MERGED:
            if field in given and field in data:
                given[field] = {**data[field], **given[field]}
        data |= given
    try:
        return Provider.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidInput(str(first.get("ctx", {}).get("error", first["msg"])), path=("extends",)) from None
