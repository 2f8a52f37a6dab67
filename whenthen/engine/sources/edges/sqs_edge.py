"""Queues of Amazon SQS, with aiobotocore (extra `aws`). A queue shares its messages itself: every process takes part.

A message is hidden from others while it is worked on, for as long as that lasts, and deleted once its events are stored. aiobotocore
rather than boto3: a long poll in a thread could not be cancelled, and would hold up the end of the process for as long as it waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from whenthen.cancellation import end_task
from whenthen.engine.log_lines import one_line
from whenthen.engine.sources.message_intake import MessageIntake, SourceTrouble
from whenthen.schemas.event_sources import SqsReading, region_of
from whenthen.sources.readings import SourceMessage

__all__ = ["SqsEdge"]

log = logging.getLogger(__name__)

BATCH = 10  #: messages of one request; SQS gives no more
BATCHES = 10  #: that are worked on at one time
LONG_POLL_S = 20  #: that a request waits for the first message; SQS allows no more
HIDDEN_S = 60  #: until others see a message whose reader died
HIDE_EVERY_S = 20.0  #: how often a message is hidden anew that is still worked on
CONNECT_S = 5
GIVE_BACK_S = 2.0

_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_REFUSED = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
_MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})


class SqsEdge:
    def __init__(self, reading: SqsReading, *, resolve_secret: Callable[[str], str]) -> None:
        self._reading = reading
        self._queue = reading.queue
        self._resolve_secret = resolve_secret

    async def run(self, intake: MessageIntake) -> None:
        """Read until it is cancelled.

        Raises:
            SourceTrouble: the queue can not be read, there are no credentials or they are refused, or aiobotocore is not installed.
        """
        try:
            from botocore.exceptions import BotoCoreError, ClientError

            # reads a megabyte of descriptions of services
            session = await asyncio.to_thread(_open_session, self._reading.profile)
        except ImportError:
            raise SourceTrouble("SQS is read with aiobotocore: pip install 'whenthen[aws]'") from None
        try:
            async with session.create_client("sqs", **self._connection()) as client:
                await self._read(client, intake)
        except ClientError as error:
            raise SourceTrouble(self._explain(error)) from error
        except BotoCoreError as error:
            raise SourceTrouble(
                f"SQS: {one_line(str(error))}; give `access_key` and `secret_key`, a `profile`, or what AWS's tools read, "
                "and look at the address"
            ) from error

    async def _read(self, client: Any, intake: MessageIntake) -> None:
        slots = asyncio.Semaphore(BATCHES)
        working: set[asyncio.Task[None]] = set()
        wait_s = 0  # to know at once whether the queue can be read
        try:
            while True:
                await slots.acquire()
                found = await client.receive_message(
                    QueueUrl=self._queue,
                    MaxNumberOfMessages=BATCH,
                    WaitTimeSeconds=wait_s,
                    VisibilityTimeout=HIDDEN_S,
                    MessageAttributeNames=["All"],
                    MessageSystemAttributeNames=["All"],
                )
                intake.reads()
                wait_s = LONG_POLL_S
                messages = found.get("Messages", [])
                if not messages:
                    slots.release()
                    continue
                task = asyncio.create_task(self._take(client, intake, messages))
                working.add(task)
                task.add_done_callback(lambda _: slots.release())
                for ended in [each for each in working if each.done()]:
                    working.discard(ended)
                    ended.result()
        finally:
            await end_task(*working)
            await asyncio.gather(*working, return_exceptions=True)  # one of them may have failed besides

    async def _take(self, client: Any, intake: MessageIntake, messages: Sequence[dict[str, Any]]) -> None:
        """Return once the messages are deleted; those that can not be come again."""
        from botocore.exceptions import BotoCoreError, ClientError

        hiding = asyncio.create_task(self._hide(client, messages))
        taken = [asyncio.ensure_future(intake.deliver(self._message(each))) for each in messages]
        try:
            await asyncio.gather(*taken)
            answer = await client.delete_message_batch(QueueUrl=self._queue, Entries=_entries(messages))
            for failed in answer.get("Failed", ()):
                log.info("SQS: a message is not deleted, and comes again: %s", one_line(str(failed.get("Message"))))
        except (BotoCoreError, ClientError) as error:
            log.info("SQS: messages are not deleted, and come again: %s", one_line(str(error)))
        except BaseException:
            await end_task(*taken, hiding)
            await asyncio.shield(self._give_back(client, messages))
            raise
        finally:
            await end_task(hiding)

    async def _hide(self, client: Any, messages: Sequence[dict[str, Any]]) -> None:
        """Hide messages anew for as long as the bus takes none."""
        from botocore.exceptions import BotoCoreError, ClientError

        while True:
            await asyncio.sleep(HIDE_EVERY_S)
            try:
                await client.change_message_visibility_batch(
                    QueueUrl=self._queue, Entries=_entries(messages, VisibilityTimeout=HIDDEN_S)
                )
            except (BotoCoreError, ClientError) as error:
                log.info("SQS: messages are not hidden any longer, and may come again: %s", one_line(str(error)))

    async def _give_back(self, client: Any, messages: Sequence[dict[str, Any]]) -> None:
        """Let others have messages at once that will not be worked on here."""
        try:
            async with asyncio.timeout(GIVE_BACK_S):
                await client.change_message_visibility_batch(
                    QueueUrl=self._queue, Entries=_entries(messages, VisibilityTimeout=0)
                )
        except Exception as error:  # noqa: BLE001 - they come again by themselves, a little later
            log.debug("SQS: messages were not given back: %r", error)

    def _connection(self) -> dict[str, Any]:
        from aiobotocore.config import AioConfig

        reading = self._reading
        address = urlsplit(reading.queue)
        found: dict[str, Any] = {
            "region_name": reading.region or region_of(reading.queue),
            "endpoint_url": f"{address.scheme}://{address.netloc}",
            "config": AioConfig(
                connect_timeout=CONNECT_S,
                read_timeout=LONG_POLL_S + 10,
                retries={"mode": "standard", "total_max_attempts": 2},
                user_agent_extra="whenthen",
            ),
        }
        for name, reference in (
            ("aws_access_key_id", reading.access_key),
            ("aws_secret_access_key", reading.secret_key),
            ("aws_session_token", reading.session_token),
        ):
            if reference is not None:
                found[name] = self._resolve_secret(reference).rstrip("\r\n")
        return found

    def _explain(self, error: Any) -> str:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _MISSING:
            return f"SQS: there is no queue {self._queue}; make it, or correct `queue`"
        if code in _EXPIRED:
            return f"SQS: the credentials have expired ({code}); renew them, they are read again"
        if code in _REFUSED:
            return f"SQS: the credentials are refused ({code}); correct them, they are read again"
        if code in _DENIED:
            return (
                "SQS: these credentials may not read the queue; they need sqs:ReceiveMessage, sqs:DeleteMessage and "
                "sqs:ChangeMessageVisibility"
            )
        return f"SQS: {one_line(str(error))}"

    def _message(self, found: dict[str, Any]) -> SourceMessage:
        headers = {
            name: str(value["StringValue"])
            for name, value in found.get("MessageAttributes", {}).items()
            if "StringValue" in value
        }
        system = found.get("Attributes", {})
        return SourceMessage(
            body=found.get("Body", "").encode(),
            headers=headers,
            delivery=found["MessageId"],
            about={
                "queue": urlsplit(self._queue).path.rpartition("/")[2],
                "id": found["MessageId"],
                "group": system.get("MessageGroupId"),
                "sent": system.get("SentTimestamp"),
            },
        )


def _open_session(profile: str | None) -> Any:
    from aiobotocore.session import AioSession

    session = AioSession(profile=profile)
    session.get_component("data_loader").load_service_model("sqs", "service-2")
    session.get_component("data_loader").load_data("endpoints")
    return session


def _entries(messages: Sequence[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    return [{"Id": str(place), "ReceiptHandle": each["ReceiptHandle"], **more} for place, each in enumerate(messages)]
