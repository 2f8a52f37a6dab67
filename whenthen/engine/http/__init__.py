"""How is the process reached over HTTP? Events and webhooks in, lists and commands for the command line, probes and metrics."""

from __future__ import annotations

from whenthen.engine.http.api_port import (
    Api,
    Json,
    Page,
)
from whenthen.engine.http.app import (
    HttpApp,
    create_app,
)
from whenthen.engine.http.serving import (
    HttpServer,
    listen,
)

__all__ = [
    "Api",
    "HttpApp",
    "HttpServer",
    "Json",
    "Page",
    "create_app",
    "listen",
]
