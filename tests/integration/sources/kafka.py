"""The mock cluster of librdkafka: a broker of Kafka's protocol over TCP that lives in its client, and as long as that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer, Producer, TopicPartition

__all__ = ["Cluster", "cluster"]

PARTITIONS = 4  #: of each topic of a mock cluster


class Cluster:
    def __init__(self, brokers: int = 1) -> None:
        self._producer = Producer({"test.mock.num.brokers": brokers, "bootstrap.servers": "mock:9092"})
        found = self._producer.list_topics(timeout=30).brokers.values()
        self.servers = [f"{broker.host}:{broker.port}" for broker in found]

    def produce(self, topic: str, *bodies: bytes | None, partition: int = -1, **more: object) -> None:
        """Write messages; returns when the broker has them. A topic is made by its first one."""
        failed: list[object] = []
        for body in bodies:
            self._producer.produce(
                topic,
                body,
                partition=partition,
                on_delivery=lambda error, _: failed.append(error) if error else None,
                **more,
            )
        assert self._producer.flush(30) == 0
        assert not failed

    def orders(self, *numbers: int) -> None:
        """Write to the topic `orders`, over all partitions."""
        for number in numbers:
            self.produce("orders", b'{"n": %d}' % number, partition=number % PARTITIONS, key=str(number))

    def committed(self, group: str, topic: str) -> int:
        """The messages that a group has committed."""
        consumer = Consumer({"bootstrap.servers": ",".join(self.servers), "group.id": group})
        try:
            parts = consumer.committed([TopicPartition(topic, number) for number in range(PARTITIONS)], timeout=10)
            return sum(max(part.offset, 0) for part in parts)
        finally:
            consumer.close()

    def close(self) -> None:
        del self._producer


@contextmanager
def cluster(brokers: int = 1) -> Iterator[Cluster]:
    made = Cluster(brokers)
    try:
        yield made
    finally:
        made.close()
