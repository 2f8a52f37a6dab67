"""How is the process reached over HTTP? Events and webhooks in, lists and commands for the command line, probes and metrics.

`answer_models` has the models of all answers, `request_models` those of requests.
"""

from __future__ import annotations

from whenthen.engine.http.api_port import (
    Api,
)
from whenthen.engine.http.app import (
    HttpApp,
    create_app,
)
from whenthen.engine.http.connections import (
    ConnectionGate,
    ConnectionLimits,
)
from whenthen.engine.http.models import answer_models, request_models, why_models
from whenthen.engine.http.models.request_models import (
    Listing,
    Page,
    PauseRequest,
    RunRequest,
    bounded,
)
from whenthen.engine.http.monitoring.monitoring_app import (
    MonitoringApp,
)
from whenthen.engine.http.request_origin import (
    RequestOrigin,
)
from whenthen.engine.http.serving import (
    HttpServer,
    Listening,
    ServerTls,
    listen,
)

__all__ = [
    "Api",
    "ConnectionGate",
    "ConnectionLimits",
    "HttpApp",
    "HttpServer",
    "Listening",
    "Listing",
    "MonitoringApp",
    "Page",
    "PauseRequest",
    "RequestOrigin",
    "RunRequest",
    "ServerTls",
    "answer_models",
    "bounded",
    "create_app",
    "listen",
    "request_models",
    "why_models",
]
