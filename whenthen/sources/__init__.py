"""How does the outside become events? A request is verified and translated, with no web framework and no bus.

The HTTP edge is in `engine.http`. Meaning: docs/sources.md.
"""

from __future__ import annotations

from whenthen.sources.cloudevents import (
    cloudevent_of_message,
    event_of_cloudevent,
    is_binary_cloudevent,
    is_cloudevent,
    trace_of_cloudevent,
)
from whenthen.sources.json_bodies import (
    decode_json,
)
from whenthen.sources.mapping import (
    HandshakeAnswer,
    SourceLimits,
    Translation,
)
from whenthen.sources.objectstore import (
    translate_notification,
)
from whenthen.sources.proofs import (
    PublicKeys,
)
from whenthen.sources.provider_files import (
    builtin_names,
    find_provider,
)
from whenthen.sources.requests import (
    Request,
)
from whenthen.sources.translator import (
    WebhookTranslator,
    check_provider,
)
from whenthen.sources.verification import (
    ResolveSecret,
    verify,
    verify_head,
)

__all__ = [
    "HandshakeAnswer",
    "PublicKeys",
    "Request",
    "ResolveSecret",
    "SourceLimits",
    "Translation",
    "WebhookTranslator",
    "builtin_names",
    "check_provider",
    "cloudevent_of_message",
    "decode_json",
    "event_of_cloudevent",
    "find_provider",
    "is_binary_cloudevent",
    "is_cloudevent",
    "readings",
    "trace_of_cloudevent",
    "translate_notification",
    "verify",
    "verify_head",
]
