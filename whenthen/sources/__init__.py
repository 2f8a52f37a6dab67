"""How the outside becomes events: verification and translation. Pure; the HTTP edge is in `engine`."""

from whenthen.sources.mapping import CompileCondition, Condition, SourceLimits, Translation
from whenthen.sources.objectstore import translate_notification
from whenthen.sources.requests import Request
from whenthen.sources.translator import WebhookTranslator
from whenthen.sources.verification import ResolveSecret, verify

__all__ = [
    "CompileCondition",
    "Condition",
    "Request",
    "ResolveSecret",
    "SourceLimits",
    "Translation",
    "WebhookTranslator",
    "translate_notification",
    "verify",
]
