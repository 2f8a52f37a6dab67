"""What rules need of the settings of the process that takes them: told with file and line, as any other problem of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pydantic import BaseModel

from whenthen.actions import CompiledActions
from whenthen.engine.process.settings import Settings
from whenthen.schemas.automations import Automation
from whenthen.schemas.errors import FieldPath, InvalidInput

__all__ = ["Checker", "setting_checks"]

Checker = Callable[[BaseModel], Iterable[tuple[FieldPath, str]]]
_URL_OF = "url_of"
_MISSING = (
    "uses url_of, and it is not known where the pages are; set public_url (WHENTHEN_PUBLIC_URL) to the address "
    "that people reach this server at, such as https://automation.example"
)


def setting_checks(settings: Settings) -> tuple[Checker, ...]:
    """The checks of rules that go beside those of `load_rules`."""
    return () if settings.public_urls else (_links,)


def _links(model: BaseModel) -> Iterator[tuple[FieldPath, str]]:
    """The fields of an automation's actions that make links to pages."""
    if not isinstance(model, Automation) or _URL_OF not in model.model_dump_json():
        return
    try:
        compiled = CompiledActions.compile(model)
    except InvalidInput:  # which is told by itself
        return
    for path in compiled.link_fields():
        yield path, _MISSING
