"""Who runs the nats-server of a `whenthen serve` without `--nats`? A child process of it, started, watched and ended in here."""

from __future__ import annotations

from whenthen.engine.bus.embedded.embedded_server import EmbeddedServer, EmbeddedSettings
from whenthen.engine.bus.embedded.server_program import find_server

__all__ = ["EmbeddedServer", "EmbeddedSettings", "find_server"]
