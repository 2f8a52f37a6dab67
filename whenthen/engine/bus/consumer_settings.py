"""What is asked of the server for a consumer: its configuration and its pull requests. Pure; `engine.bus.pull_consumer` sends them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

__all__ = ["HEARTBEAT_S", "ConsumerSettings"]

EXPIRES_S = 30.0  #: of a pull request
HEARTBEAT_S = 1.0
SILENCE_S = 3.0  #: without message or heartbeat: the consumer is gone
INACTIVE_S = 60.0  #: after which the server forgets an abandoned ordered consumer
MAX_WAITING = 16  #: pull requests that the server keeps for an ordered consumer
#: what a message costs besides its data when the server compares it with `max_bytes` (subjects, headers)
OVERHEAD_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSettings:
    """Which consumer, and how it is asked."""

    stream: str
    config: Mapping[str, object]  #: as `CONSUMER.CREATE` takes it, without a name
    durable: str = ""  #: its name; empty for an ordered consumer
    expires_s: float = EXPIRES_S  #: of a pull request
    max_bytes: int = 0
    """Of a pull request; 0 for no limit. Raised to what the largest message needs, or that would never come."""

    @property
    def heartbeats(self) -> bool:
        """Whether pull requests ask for heartbeats; the server refuses that of shorter ones."""
        return self.expires_s >= 2 * HEARTBEAT_S

    @property
    def silence_s(self) -> float:
        """Without a message or heartbeat for so long the consumer is gone. A request that is too short for heartbeats is answered by its
        end at the latest."""
        return SILENCE_S if self.heartbeats else self.expires_s + SILENCE_S

    def ordered_config(self, name: str, *, after: int) -> dict[str, object]:
        """Of an ordered consumer, which reads on from position `after` of the stream; 0 for what the settings say."""
        config: dict[str, object] = {
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": int(INACTIVE_S * 1e9),
            "mem_storage": True,
            "num_replicas": 1,
            "max_waiting": MAX_WAITING,
            **self.config,
            "name": name,
        }
        if after:
            config.pop("opt_start_time", None)
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": after + 1}
        return config

    @property
    def durable_subject(self) -> str:
        """Of the request that creates the durable consumer, behind its verb."""
        subject = f"{self.stream}.{self.durable}"
        filter_subject = self.config.get("filter_subject")
        return f"{subject}.{filter_subject}" if filter_subject else subject

    def pull_request(self, batch: int, *, max_payload: int) -> bytes:
        """Asks for so many messages."""
        request = {"batch": batch, "expires": int(self.expires_s * 1e9)}
        if self.max_bytes:
            request["max_bytes"] = max(self.max_bytes, max_payload + OVERHEAD_BYTES)
        if self.heartbeats:
            request["idle_heartbeat"] = int(HEARTBEAT_S * 1e9)
        return orjson.dumps(request)
