"""The mock cluster of librdkafka: brokers of Kafka's protocol over TCP that live in this process, and as long as it lets them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import files
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

__all__ = ["PARTITIONS", "Cluster", "cluster"]

PARTITIONS = 4  #: of each topic of a mock cluster


class Cluster:
    def __init__(self, brokers: int = 1) -> None:
        self._mock = _Mock(brokers)
        self.servers = self._mock.servers
        self._producer = Producer({"bootstrap.servers": ",".join(self.servers)})

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

    def go_away(self, broker: int = 1) -> None:
        """End all connections to a broker and let nobody in; what it has it keeps."""
        self._mock.set_down(broker)

    def come_back(self, broker: int = 1) -> None:
        self._mock.set_up(broker)

    def close(self) -> None:
        del self._producer
        self._mock.close()


class _Mock:
    """The cluster itself, of a client that does nothing else; confluent_kafka has no words for brokers that come and go."""

    def __init__(self, brokers: int) -> None:
        self._library = library = _library()
        config = ctypes.c_void_p(library.rd_kafka_conf_new())
        reason = ctypes.create_string_buffer(512)
        for name, value in ((b"test.mock.num.brokers", b"%d" % brokers), (b"log_level", b"2")):
            assert library.rd_kafka_conf_set(config, name, value, reason, len(reason)) == 0, reason.value
        self._client = ctypes.c_void_p(library.rd_kafka_new(0, config, reason, len(reason)))
        assert self._client, reason.value
        self._cluster = ctypes.c_void_p(library.rd_kafka_handle_mock_cluster(self._client))
        self.servers: list[str] = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode().split(",")

    def set_down(self, broker: int) -> None:
        assert self._library.rd_kafka_mock_broker_set_down(self._cluster, broker) == 0

    def set_up(self, broker: int) -> None:
        assert self._library.rd_kafka_mock_broker_set_up(self._cluster, broker) == 0

    def close(self) -> None:
        self._library.rd_kafka_destroy(self._client)


def _library() -> Any:
    """librdkafka, as confluent_kafka's wheel has it."""
    path = next(each for each in files("confluent-kafka") or () if each.name.startswith("librdkafka"))
    library = ctypes.CDLL(str(path.locate()))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, ()),
        ("rd_kafka_conf_set", number, (pointer, text, text, text, ctypes.c_size_t)),
        ("rd_kafka_new", pointer, (number, pointer, text, ctypes.c_size_t)),
        ("rd_kafka_destroy", None, (pointer,)),
        ("rd_kafka_handle_mock_cluster", pointer, (pointer,)),
        ("rd_kafka_mock_cluster_bootstraps", text, (pointer,)),
        ("rd_kafka_mock_broker_set_down", number, (pointer, ctypes.c_int32)),
        ("rd_kafka_mock_broker_set_up", number, (pointer, ctypes.c_int32)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@contextmanager
def cluster(brokers: int = 1) -> Iterator[Cluster]:
    made = Cluster(brokers)
    try:
        yield made
    finally:
        made.close()
