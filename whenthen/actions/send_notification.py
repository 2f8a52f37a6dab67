"""send-notification: a message through Apprise to every URL of a notifier.

Apprise URLs hold tokens. So no URL and no text of Apprise gets into an error, and while a message is being sent the
loggers that would write them are silent: what counts is said by the action's own outcome.

Apprise opens connections by itself, so the address policy of `actions.http` is asked before: a URL whose host is refused is not
handed to it, and redirects are off. It resolves the name once more when it sends. Meaning: docs/actions.md, "send-notification".

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
from whenthen.actions.http.outgoing import RequestFailed
from whenthen.actions.secrets import is_reference
from whenthen.schemas.actions import SendNotification
from whenthen.schemas.errors import ActionError

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
            compile_text_field(action.subject, "subject", empty=True, links=True),
            compile_text_field(action.body, "body", links=True),
        )

    async def run(self, call: Call) -> ActionResult:
        subject, body = self.subject.render(call), self.body.render(call)
        call.record.sends(notifier=self.notifier, subject=subject, body=body)
        urls = [self._url(call, index, url) for index, url in enumerate(call.ports.notifiers.urls(self.notifier))]
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
            for index, target in enumerate(targets):
                await self._check_hosts(call, index, target)
            sent = await asyncio.gather(*(asyncio.to_thread(_send, target, subject, body) for target in targets))
        failed = [index for index, ok in enumerate(sent) if not ok]
        if failed:
            services = ", ".join(f"{self._place(index)} ({_service(targets[index])})" for index in failed)
            raise ActionError(f"not delivered by {len(failed)} of {len(sent)}: {services}", reason="not_delivered")
        return ActionResult(details={"notifier": self.notifier, "services": [_service(target) for target in targets]})

    async def _check_hosts(self, call: Call, index: int, target: apprise.NotifyBase) -> None:
        for host in _hosts(target):
            try:
                await call.ports.http.check_host(host)
            except RequestFailed as error:
                raise ActionError(
                    f"{self._place(index)} ({_service(target)}): {error}", retryable=False, reason=error.reason
                ) from None

    def _url(self, call: Call, index: int, url: str) -> str:
        if is_reference(url):
            return call.ports.resolve_secret(url)
        call.ports.redactor.add(url, source=self._place(index))
        return url

    def _place(self, index: int) -> str:
        return f"notifiers.{self.notifier}.urls[{index}]"


def unreadable(urls: Sequence[str]) -> list[int]:
    """Which of a notifier's `urls` Apprise can not read, by index. References are not looked at."""
    with _silenced():
        return [index for index, url in enumerate(urls) if not is_reference(url) and _read([url]) == [None]]


def _read(urls: Sequence[str]) -> list[apprise.NotifyBase | None]:
    import apprise

    targets = [apprise.Apprise.instantiate(url) for url in urls]
    for target in targets:
        if target is not None:
            target.redirects = False
    return targets


def _send(target: apprise.NotifyBase, subject: str, body: str) -> bool:
    import apprise

    sender = apprise.Apprise()
    sender.add(target)
    return bool(sender.notify(body=body, title=subject, body_format=apprise.NotifyFormat.TEXT))


def _hosts(target: apprise.NotifyBase) -> list[str]:
    """The hosts of a URL that Apprise connects to. Of services at an address of their own the URL has none: what stands in the host's
    place is a token, which must not be asked of a name server."""
    found = []
    if "host" in target.template_tokens and getattr(target, "mode", None) != "cloud":
        found.append(target.host)
    found.append(getattr(target, "smtp_host", None))
    return [host for host in dict.fromkeys(found) if isinstance(host, str) and host]


def _service(target: apprise.NotifyBase) -> str:
    return str(target.service_name)
