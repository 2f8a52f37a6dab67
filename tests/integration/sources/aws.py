"""Amazon's services for tests: the server of moto, over real HTTP, and boto3 against it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

from tests.integration.sources.brokers import Program
from tests.ports import free_port

__all__ = ["ACCOUNT", "REGION", "Cloud", "cloud"]

ACCOUNT = "123456789012"
REGION = "eu-west-1"


class Cloud:
    """A server that forgets everything when it is killed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._clients: dict[str, Any] = {}
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.server = Program(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port], port, folder / "log"
        )

    def client(self, service: str) -> Any:
        if service not in self._clients:  # to make one takes long
            self._clients[service] = boto3.client(
                service,
                region_name=REGION,
                endpoint_url=self.url,
                aws_access_key_id="an-access-key",
                aws_secret_access_key="a-secret-key",
            )
        return self._clients[service]

    def queue(self, name: str, **attributes: str) -> str:
        """Make a queue; its address."""
        self.client("sqs").create_queue(QueueName=name, Attributes=attributes)
        return self.address(name)

    def address(self, name: str) -> str:
        return f"{self.url}/{ACCOUNT}/{name}"

    def send(self, name: str, *bodies: str, **more: Any) -> None:
        client = self.client("sqs")
        for body in bodies:
            client.send_message(QueueUrl=self.address(name), MessageBody=body, **more)

    def held(self, name: str) -> tuple[int, int]:
        """The messages of a queue: that wait, and that somebody is working on."""
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        found = self.client("sqs").get_queue_attributes(QueueUrl=self.address(name), AttributeNames=list(names))
        return int(found["Attributes"][names[0]]), int(found["Attributes"][names[1]])


@contextmanager
def cloud(folder: Path) -> Iterator[Cloud]:
    made = Cloud(folder)
    made.server.start()
    try:
        yield made
    finally:
        made.server.kill()
