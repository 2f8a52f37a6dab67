"""send-notification: a message through Apprise to every URL of a notifier.

Apprise URLs hold tokens. So no URL and no text of Apprise gets into an error, and while a message is being sent the
loggers that would write them are silent: what counts is said by the action's own outcome.

Apprise is imported by the first message: most processes never send one, and it is slow to import.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whenthen.actions.attempts import ActionResult, Call
from whenthen.actions.fields import Field, compile_text_field
from whenthen.actions.secrets import is_reference
from whenthen.schemas import ActionError, SendNotification

if TYPE_CHECKING:
    import apprise

__all__ = ["SendNotificationHandler", "unreadable"]

#: loggers that write URLs or messages: Apprise itself, and what it sends with
TALKATIVE = ("apprise", "urllib3.connectionpool", "requests", "slixmpp", "paho.mqtt.client")

_SENDING: ContextVar[bool] = ContextVar("whenthen_sending_notification", default=False)


class _Silence(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _SENDING.get()


_SILENCE = _Silence()


@contextmanager
def _silenced() -> Iterator[None]:
    for name in TALKATIVE:
        logging.getLogger(name).addFilter(_SILENCE)  # one and the same filter is added once
    token = _SENDING.set(True)
    try:
        yield
    finally:
        _SENDING.reset(token)


@dataclass(frozen=True, slots=True)
class SendNotificationHandler:
    """Delivered means: Apprise reports success for each URL. A retry sends to all of them again."""

    notifier: str
    subject: Field[str]
    body: Field[str]

    @classmethod
    def compile(cls, action: SendNotification) -> SendNotificationHandler:
        return cls(
            action.notifier,
            compile_text_field(action.subject, "subject", empty=True),
            compile_text_field(action.body, "body"),
        )

    async def run(self, call: Call) -> ActionResult:
        subject, body = self.subject.render(call), self.body.render(call)
        urls = [self._url(call, url) for url in call.ports.notifiers.urls(self.notifier)]
        with _silenced():
            # in a thread too: the first use of Apprise loads all of its services
            read = await asyncio.to_thread(_read, urls)
            targets = [target for target in read if target is not None]
            if len(targets) < len(read):
                raise ActionError(
                    f"{self._place(read.index(None))} is not a URL that Apprise can use; "
                    "`apprise --details` lists the forms",
                    retryable=False,
                    reason="notifier",
                )
            sent = await asyncio.gather(*(asyncio.to_thread(_send, target, subject, body) for target in targets))
        failed = [index for index, ok in enumerate(sent) if not ok]
        if failed:
            services = ", ".join(f"{self._place(index)} ({_service(targets[index])})" for index in failed)
            raise ActionError(f"not delivered by {len(failed)} of {len(sent)}: {services}", reason="not_delivered")
        return ActionResult(details={"notifier": self.notifier, "services": [_service(target) for target in targets]})

    @staticmethod
    def _url(call: Call, url: str) -> str:
        if is_reference(url):
            return call.ports.resolve_secret(url)
        call.ports.redactor.add(url)
        return url

    def _place(self, index: int) -> str:
        return f"notifiers.{self.notifier}.urls[{index}]"


def unreadable(urls: Sequence[str]) -> list[int]:
    """Which of a notifier's `urls` Apprise can not read, by index. References are not looked at."""
    with _silenced():
        return [index for index, url in enumerate(urls) if not is_reference(url) and _read([url]) == [None]]


def _read(urls: Sequence[str]) -> list[apprise.NotifyBase | None]:
    import apprise

    return [apprise.Apprise.instantiate(url) for url in urls]


def _send(target: apprise.NotifyBase, subject: str, body: str) -> bool:
    import apprise

    sender = apprise.Apprise()
    sender.add(target)
    return bool(sender.notify(body=body, title=subject, body_format=apprise.NotifyFormat.TEXT))


def _service(target: apprise.NotifyBase) -> str:
    return str(target.service_name)
