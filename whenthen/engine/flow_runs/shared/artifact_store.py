"""Artifacts of runs, in the stream `ARTIFACTS`: one subject and one message for each, its newest version (`runs.stores.ArtifactStore`)."""

from __future__ import annotations

import logging
from dataclasses import asdict

import orjson

from whenthen.engine.bus.buckets import publish_with
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.stream_pages import StoredMessage, newest
from whenthen.engine.bus.subjects import artifact_subject
from whenthen.engine.flow_runs.flow_streams import ARTIFACTS
from whenthen.runs.shared import artifacts

__all__ = ["NatsArtifactStore"]

log = logging.getLogger(__name__)


class NatsArtifactStore:
    """See `runs.stores.ArtifactStore`."""

    def __init__(self, client: RequestClient) -> None:
        self._client = client

    async def put(self, record: artifacts.ArtifactRecord) -> None:
        fields = asdict(record)
        del fields["seq"]
        subject = artifact_subject(record.key, record.run, record.id)
        await publish_with(self._client, subject, orjson.dumps(fields), {})

    async def get(self, id: str, *, run_id: str | None = None) -> artifacts.ArtifactRecord | None:
        found = await self._page(artifact_subject(None, run_id, id), limit=1)
        return found[0] if found else None

    async def of_key(self, key: str) -> artifacts.ArtifactRecord | None:
        found = await self._page(artifact_subject(key, None, None), limit=1)
        return found[0] if found else None

    async def page(
        self, *, run_id: str | None = None, key: str | None = None, limit: int, before: int | None = None
    ) -> artifacts.ArtifactPage:
        return await self._page(artifact_subject(key, run_id, None), limit=limit, before=before)

    async def _page(self, subject: str, *, limit: int, before: int | None = None) -> artifacts.ArtifactPage:
        found = await newest(self._client, ARTIFACTS, subject, limit=limit, pick=_artifact, before=before)
        page = artifacts.ArtifactPage(found)
        page.next = found.next
        return page


def _artifact(message: StoredMessage) -> artifacts.ArtifactRecord | None:
    try:
        return artifacts.artifact_of_record(orjson.loads(message.data), message.seq)
    except (ValueError, KeyError, TypeError) as error:
        log.error("the artifact at sequence %d can not be read and is passed over: %r", message.seq, error)
        return None
