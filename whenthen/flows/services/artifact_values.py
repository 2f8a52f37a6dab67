"""Artifacts: what a run has to show besides its result. Given to the reporter; without one a line in the log of the run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from whenthen.flows.argument_kinds import ID, MAPPING, NUMBER, TEXT, Kind, check, checked_arguments
from whenthen.flows.clock import utc_now
from whenthen.flows.execution.reporter import REPORTER
from whenthen.flows.execution.run_contexts import FLOW, TASK, current_run
from whenthen.flows.execution.run_logging import engine_logger, logger_of
from whenthen.flows.execution.run_records import new_id
from whenthen.flows.flow_errors import ConfigurationError
from whenthen.flows.services.sync_or_awaited import asked, connected, in_thread, sync_or_awaited
from whenthen.flows.unsupported import needs_server

__all__ = [
    "Artifact",
    "ImageArtifact",
    "LinkArtifact",
    "MarkdownArtifact",
    "ProgressArtifact",
    "TableArtifact",
    "acreate_image_artifact",
    "acreate_link_artifact",
    "acreate_markdown_artifact",
    "acreate_progress_artifact",
    "acreate_table_artifact",
    "aupdate_progress_artifact",
    "create_image_artifact",
    "create_link_artifact",
    "create_markdown_artifact",
    "create_progress_artifact",
    "create_table_artifact",
    "update_progress_artifact",
]

SHOWN_CHARS = 200  #: of an artifact in a line of the log
KEY = re.compile(r"[a-z0-9-]+")

Table = dict[str, list[Any]] | list[dict[str, Any]] | list[list[Any]]
A = TypeVar("A", bound="Artifact")

KINDS = {
    "key": TEXT.or_none,
    "type": TEXT.or_none,
    "description": TEXT.or_none,
    "metadata_": MAPPING.or_none,
    "id": ID,
    "markdown": TEXT,
    "link": TEXT,
    "link_text": TEXT.or_none,
    "table": Kind("a list of rows or a mapping of columns", lambda value: isinstance(value, (dict, list))),
    "progress": NUMBER,
    "image_url": TEXT,
}


@dataclass(kw_only=True)
class Artifact:
    """One artifact. Artifacts of one key are versions of one thing."""

    default_type: ClassVar[str | None] = None

    key: str | None = None
    type: str | None = None
    description: str | None = None
    data: Any = None
    metadata_: dict[str, str] | None = None
    flow_run_id: UUID | None = None
    task_run_id: UUID | None = None
    id: UUID = field(default_factory=new_id)
    created: datetime = field(default_factory=utc_now)

    def __post_init__(self) -> None:
        check(type(self).__name__, KINDS, vars(self))
        if self.key is not None and KEY.fullmatch(self.key) is None:
            raise ConfigurationError(
                f"Artifact key must only contain lowercase letters, numbers, and dashes; found {self.key!r:.80}"
            )
        self.type = self.type or self.default_type

    def format(self) -> Any:
        """The artifact as it is kept."""
        return json.dumps(self.data, default=str)

    async def aformat(self) -> Any:
        return self.format()

    def create(self) -> Any:
        """Make it known, with the run that this code is in; in an async run a coroutine of it. Gives the artifact."""
        return sync_or_awaited(self._create)

    async def acreate(self: A) -> A:
        return await in_thread(self._create)

    def _create(self: A) -> A:
        self.data = self.format()
        flow, task = FLOW.get(), TASK.get()
        self.flow_run_id = self.flow_run_id or (None if flow is None else flow.flow_run.id)
        self.task_run_id = self.task_run_id or (None if task is None else task.task_run.id)
        self._tell()
        return self

    def _tell(self) -> None:
        if connected():
            REPORTER.get().artifact(self)
            return
        run = current_run()
        shown = str(self.data)
        text = shown if len(shown) <= SHOWN_CHARS else f"{shown[:SHOWN_CHARS]}... ({len(shown):,} characters)"
        logger = engine_logger() if run is None else logger_of(run)
        logger.info("artifact %s (%s): %s", self.key or self.id, self.type or "unknown", text)

    @classmethod
    @checked_arguments("Artifact.get", key=TEXT.or_none)
    def get(cls, key: str | None = None) -> Any:
        """The artifact of a key that changed last, of any run, or None; in an async run a coroutine of it.

        Raises:
            NeedsServer: there is no server, which keeps them.
        """
        return sync_or_awaited(lambda: _kept(key))

    @classmethod
    @checked_arguments("Artifact.aget", key=TEXT.or_none)
    async def aget(cls, key: str | None = None) -> Artifact | None:
        return await in_thread(lambda: _kept(key))

    @classmethod
    def get_or_create(cls, key: str | None = None, **given: Any) -> Any:
        """That artifact and False, or one that is made of `given` and True; in an async run a coroutine of these."""
        return sync_or_awaited(lambda: cls._get_or_create(key, given))

    @classmethod
    async def aget_or_create(cls, key: str | None = None, **given: Any) -> tuple[Artifact, bool]:
        return await in_thread(lambda: cls._get_or_create(key, given))

    @classmethod
    def _get_or_create(cls, key: str | None, given: dict[str, Any]) -> tuple[Artifact, bool]:
        found = _kept(key)
        return (found, False) if found is not None else (cls(key=key, **given)._create(), True)


@dataclass(kw_only=True)
class MarkdownArtifact(Artifact):
    """A text in Markdown."""

    default_type: ClassVar[str | None] = "markdown"
    markdown: str

    def format(self) -> str:
        return self.markdown


@dataclass(kw_only=True)
class LinkArtifact(Artifact):
    """A link; kept as Markdown."""

    default_type: ClassVar[str | None] = "markdown"
    link: str
    link_text: str | None = None

    def format(self) -> str:
        return f"[{self.link_text or self.link}]({self.link})"


@dataclass(kw_only=True)
class TableArtifact(Artifact):
    """A table: a list of rows, or a mapping of columns."""

    default_type: ClassVar[str | None] = "table"
    table: Table

    def format(self) -> str:
        return json.dumps(_without_nan(self.table), default=str)


@dataclass(kw_only=True)
class ProgressArtifact(Artifact):
    """How far something is, from 0 to 100."""

    default_type: ClassVar[str | None] = "progress"
    progress: float

    def format(self) -> float:
        if not 0.0 <= self.progress <= 100.0:
            found, self.progress = self.progress, max(0.0, min(float(self.progress), 100.0))
            engine_logger().warning("progress %s lies outside of 0 to 100; taken as %s", found, self.progress)
        return self.progress


@dataclass(kw_only=True)
class ImageArtifact(Artifact):
    """An image, by its address."""

    default_type: ClassVar[str | None] = "image"
    image_url: str

    def format(self) -> str:
        return self.image_url


def _kept(key: str | None) -> Artifact | None:
    """The artifact of a key that changed last."""
    found = asked("artifact.get", {"key": key or ""}, otherwise=needs_server("Artifact.get"))
    if found is None:
        return None
    return Artifact(
        id=UUID(hex=found["id"]),
        key=found["key"] or None,
        type=found["type"] or None,
        description=found["description"] or None,
        data=found["data"],
        metadata_=found["metadata"] or None,
        flow_run_id=UUID(hex=found["run"]),
        task_run_id=UUID(hex=found["task_run"]) if found["task_run"] else None,
        created=datetime.fromisoformat(found["created"]),
    )


def _made(artifact: Artifact) -> UUID:
    return artifact._create().id


@checked_arguments()
def create_markdown_artifact(markdown: str, key: str | None = None, description: str | None = None) -> Any:
    """Show a text. Gives the artifact's id; in an async run a coroutine of it, as all of these do."""
    artifact = MarkdownArtifact(markdown=markdown, key=key, description=description)
    return sync_or_awaited(lambda: _made(artifact))


@checked_arguments()
def create_table_artifact(table: Table, key: str | None = None, description: str | None = None) -> Any:
    """Show a table."""
    artifact = TableArtifact(table=table, key=key, description=description)
    return sync_or_awaited(lambda: _made(artifact))


@checked_arguments()
def create_link_artifact(
    link: str, link_text: str | None = None, key: str | None = None, description: str | None = None, client: Any = None
) -> Any:
    """Show a link."""
    artifact = LinkArtifact(link=link, link_text=link_text, key=key, description=description)
    return sync_or_awaited(lambda: _made(artifact))


@checked_arguments()
def create_image_artifact(image_url: str, key: str | None = None, description: str | None = None) -> Any:
    """Show an image."""
    artifact = ImageArtifact(image_url=image_url, key=key, description=description)
    return sync_or_awaited(lambda: _made(artifact))


@checked_arguments()
def create_progress_artifact(progress: float, key: str | None = None, description: str | None = None) -> Any:
    """Show how far something is; `update_progress_artifact` with the id tells more."""
    artifact = ProgressArtifact(progress=progress, key=key, description=description)
    return sync_or_awaited(lambda: _made(artifact))


@checked_arguments(artifact_id=ID)
def update_progress_artifact(
    artifact_id: UUID, progress: float, description: str | None = None, client: Any = None
) -> Any:
    """Show that something is further."""
    artifact = ProgressArtifact(id=artifact_id, progress=progress, description=description)
    return sync_or_awaited(lambda: _made(artifact))


@checked_arguments()
async def acreate_markdown_artifact(markdown: str, key: str | None = None, description: str | None = None) -> UUID:
    return await in_thread(lambda: _made(MarkdownArtifact(markdown=markdown, key=key, description=description)))


@checked_arguments()
async def acreate_table_artifact(table: Table, key: str | None = None, description: str | None = None) -> UUID:
    return await in_thread(lambda: _made(TableArtifact(table=table, key=key, description=description)))


@checked_arguments()
async def acreate_link_artifact(
    link: str, link_text: str | None = None, key: str | None = None, description: str | None = None, client: Any = None
) -> UUID:
    artifact = LinkArtifact(link=link, link_text=link_text, key=key, description=description)
    return await in_thread(lambda: _made(artifact))


@checked_arguments()
async def acreate_image_artifact(image_url: str, key: str | None = None, description: str | None = None) -> UUID:
    return await in_thread(lambda: _made(ImageArtifact(image_url=image_url, key=key, description=description)))


@checked_arguments()
async def acreate_progress_artifact(progress: float, key: str | None = None, description: str | None = None) -> UUID:
    return await in_thread(lambda: _made(ProgressArtifact(progress=progress, key=key, description=description)))


@checked_arguments(artifact_id=ID)
async def aupdate_progress_artifact(
    artifact_id: UUID, progress: float, description: str | None = None, client: Any = None
) -> UUID:
    artifact = ProgressArtifact(id=artifact_id, progress=progress, description=description)
    return await in_thread(lambda: _made(artifact))


def _without_nan(value: Any) -> Any:
    """NaN is no JSON; it becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return value
