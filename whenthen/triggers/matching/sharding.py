"""In which shard an automation is evaluated. Called by the rule registry, and by a replay that passes over what a shard passed over."""

from __future__ import annotations

__all__ = ["shard_of"]


def shard_of(automation: str, shards: int) -> int:
    """The shard of an automation, by its name; the same on every machine and for ever."""
    value = 0xCBF29CE484222325
    for byte in automation.encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return (value ^ (value >> 32)) % shards
