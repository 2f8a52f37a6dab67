"""Credentials that are taken away while a source is read, and things that are not there: said with the remedy, once, and mended without a restart."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import nats
import psycopg
import pytest
import redis.asyncio
from psycopg.conninfo import make_conninfo

from tests.integration.conftest import NatsServer
from tests.integration.sources.brokers import mosquitto, rabbitmq
from tests.integration.sources.brokers import redis as redis_server
from tests.integration.sources.reading import Reading, reading
from tests.integration.sources.test_mqtt_source import publish as publish_mqtt
from tests.integration.sources.test_rabbitmq_source import publish as publish_rabbit
from tests.patience import until
from tests.postgres import postgres
from whenthen.engine.sources import source_runner
from whenthen.engine.sources.edges.postgres_edge import outbox_sql

pytestmark = [pytest.mark.anyio, pytest.mark.takes(15)]

MAP = 'map: {event: order.placed, resource: {id: "order.{{ body.n }}"}}'


class Secret:
    """A file with a secret, which is read whenever a source connects."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, text: str) -> None:
        self._path.write_text(text)

    def __str__(self) -> str:
        return str(self._path)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that failed is read again after a second at most; each test has it fail a dozen times, and half a minute is waited else."""
    monkeypatch.setattr(source_runner, "AGAIN_S", (0.2, 1.0))


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    return Secret(tmp_path / "secret")


def said(caplog: pytest.LogCaptureFixture, *words: str) -> list[str]:
    """The warnings about sources with these words."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("whenthen.")
        and record.levelno >= logging.WARNING
        and record.getMessage().startswith("source ")
        and all(word in record.getMessage() for word in words)
    ]


async def tried_again(here: Reading, name: str) -> None:
    """Wait until a source that is in trouble has failed a few times."""
    runner = here.server._running._sources  # type: ignore[union-attr]
    assert runner is not None

    async def has() -> bool:
        return runner.watches[name].failures >= 3

    await until(has, within_s=30)


@pytest.mark.requires("redis-server")
async def test_redis_that_is_away_whose_user_is_unknown_may_less_and_gets_another_password(
    tmp_path: Path, secret: Secret, caplog: pytest.LogCaptureFixture
) -> None:
    server = redis_server(tmp_path / "redis")
    secret.put(f"redis://whenthen:one@127.0.0.1:{server.port}/0")
    text = f"sources:\n  - {{name: orders, read: {{type: redis, url: 'file:{secret}', stream: orders}}, {MAP}}}\n"
    try:
        async with reading(tmp_path, text) as here:
            await here.becomes("orders", "trouble", "Redis can not be read: ", "; check the address and login in `url`")
            server.start()
            async with redis.asyncio.Redis(port=server.port) as admin:
                await here.becomes("orders", "trouble", "invalid username-password pair")
                await tried_again(here, "orders")
                assert len(said(caplog, "invalid username-password pair")) == 1
                await admin.execute_command("ACL", "SETUSER", "whenthen", "on", ">one", "~*", "+@all")
                await here.becomes("orders", "reading")
                await admin.xadd("orders", {"n": 1})
                await here.come(1)
                await admin.execute_command("ACL", "SETUSER", "whenthen", "-xreadgroup")
                await here.becomes("orders", "trouble", "xreadgroup", "may read the stream orders")
                await admin.execute_command("ACL", "SETUSER", "whenthen", "+xreadgroup")
                await here.becomes("orders", "reading")
                await admin.execute_command("ACL", "SETUSER", "whenthen", "resetpass", ">two")
                await admin.execute_command("CLIENT", "KILL", "USER", "whenthen")
                await here.becomes("orders", "trouble", "invalid username-password pair")
                await admin.xadd("orders", {"n": 2})
                secret.put(f"redis://whenthen:two@127.0.0.1:{server.port}/0")
                await here.come(2)
                assert (await here.becomes("orders", "reading"))["problems"] == []
                await admin.delete("orders")  # with its group
                await here.becomes("orders", "trouble", "orders")
                await here.becomes("orders", "reading")
                await admin.xadd("orders", {"n": 3})
                await here.come(3)
    finally:
        server.kill()


@pytest.mark.requires("rabbitmq-server")
async def test_rabbitmq_whose_users_password_is_changed_and_whose_queue_goes(
    tmp_path: Path, secret: Secret, caplog: pytest.LogCaptureFixture
) -> None:
    server = rabbitmq(tmp_path / "rabbitmq")

    def ctl(*words: str) -> str:
        return server.run("/usr/lib/rabbitmq/bin/rabbitmqctl", "-q", *words)

    admin = f"amqp://guest:guest@127.0.0.1:{server.port}/"
    secret.put(f"amqp://whenthen:one@127.0.0.1:{server.port}/")
    text = f"sources:\n  - {{name: orders, read: {{type: rabbitmq, url: 'file:{secret}', queue: orders}}, {MAP}}}\n"
    server.start()
    try:
        ctl("await_startup")
        ctl("add_user", "whenthen", "one")
        ctl("set_permissions", "whenthen", "", "", ".*")
        await publish_rabbit(admin, 1)
        async with reading(tmp_path, text) as here:
            await here.come(1)
            await here.becomes("orders", "reading")
            ctl("change_password", "whenthen", "two")
            ctl("close_all_connections", "the password is another one")
            await here.becomes("orders", "trouble", "ACCESS_REFUSED", "the queue orders is there")
            await publish_rabbit(admin, 2)
            await tried_again(here, "orders")
            assert len(said(caplog, "ACCESS_REFUSED")) == 1
            secret.put(f"amqp://whenthen:two@127.0.0.1:{server.port}/")
            await here.come(2)
            await here.becomes("orders", "reading")
            ctl("delete_queue", "orders")
            await here.becomes("orders", "trouble", "orders")
            await publish_rabbit(admin, 3)
            await here.come(3)
    finally:
        server.kill()


async def test_nats_whose_user_is_removed(tmp_path: Path, secret: Secret, caplog: pytest.LogCaptureFixture) -> None:
    def users(*names: str) -> str:
        return "authorization { users: [" + ", ".join(f"{{user: {name}, password: {name}}}" for name in names) + "] }"

    server = NatsServer(tmp_path / "theirs", extra=users("admin", "whenthen"))
    config = server._config.read_text()

    def let_in(*names: str) -> None:
        server._config.write_text(config.replace(users("admin", "whenthen"), users(*names)))
        assert server._process is not None
        server._process.send_signal(1)

    secret.put(f"nats://whenthen:whenthen@127.0.0.1:{server.port}")
    text = f"sources:\n  - {{name: orders, read: {{type: nats, url: 'file:{secret}', stream: ORDERS, existing: report}}, {MAP}}}\n"
    async with reading(tmp_path, text) as here:
        await here.becomes("orders", "trouble", "check the address and login in `url`")
        server.start()
        try:
            await here.becomes("orders", "trouble", "stream ORDERS", "is it there, and may this user read it?")
            theirs = await nats.connect(server.url, user="admin", password="admin")
            js = theirs.jetstream()
            await js.add_stream(name="ORDERS", subjects=["orders.>"])
            await js.publish("orders.new", b'{"n": 1}')
            await here.come(1)
            let_in("admin")
            await here.becomes("orders", "trouble", "Authorization Violation", "check the address and login in `url`")
            await tried_again(here, "orders")
            assert len(said(caplog, "Authorization Violation")) == 1
            await js.publish("orders.new", b'{"n": 2}')
            let_in("admin", "whenthen")
            await here.come(2)
            await here.becomes("orders", "reading")
            await theirs.close()
        finally:
            server.stop()


@pytest.mark.requires("postgresql")
async def test_postgres_whose_roles_password_is_changed_and_whose_table_goes(
    tmp_path: Path, secret: Secret, caplog: pytest.LogCaptureFixture
) -> None:
    with postgres() as cluster:
        url = cluster.database("shop")
        rights = cluster._data / "pg_hba.conf"
        rights.write_text("local all shopper scram-sha-256\n" + rights.read_text())
        secret.put(make_conninfo(url, user="shopper", password="one"))
        text = f"sources:\n  - {{name: shop, read: {{type: postgres, url: 'file:{secret}', outbox: orders_outbox}}, {MAP}}}\n"
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("select pg_reload_conf()")
            admin.execute("create role shopper login password 'one'")
            async with reading(tmp_path, text) as here:
                await here.becomes(
                    "shop", "trouble", '"orders_outbox" does not exist', "`whenthen sources sql orders_outbox`"
                )
                admin.execute(outbox_sql("orders_outbox"))
                await here.becomes("shop", "trouble", "permission denied")
                admin.execute("grant select, delete on orders_outbox to shopper")
                admin.execute("""insert into orders_outbox (body) values ('{"n": 1}')""")
                await here.come(1)
                admin.execute("alter role shopper password 'two'")
                admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'shopper'")
                await here.becomes(
                    "shop", "trouble", "password authentication failed", "check the address and login in `url`"
                )
                await tried_again(here, "shop")
                assert len(said(caplog, "password authentication failed")) == 1
                admin.execute("""insert into orders_outbox (body) values ('{"n": 2}')""")
                secret.put(make_conninfo(url, user="shopper", password="two"))
                await here.come(2)
                assert (await here.becomes("shop", "reading"))["problems"] == []


@pytest.mark.requires("mosquitto")
async def test_mqtt_whose_password_file_is_changed(
    tmp_path: Path, secret: Secret, caplog: pytest.LogCaptureFixture
) -> None:
    passwords = tmp_path / "passwords"

    def let_in(**users: str) -> None:
        passwords.unlink(missing_ok=True)
        passwords.touch(0o600)
        for name, password in users.items():
            subprocess.run(["mosquitto_passwd", "-b", passwords, name, password], check=True, capture_output=True)

    let_in(admin="admin", whenthen="one")
    server = mosquitto(tmp_path / "mosquitto", passwords=passwords)
    server.start()
    secret.put("one")
    login = {"username": "admin", "password": "admin"}
    text = f"""
sources:
  - name: gauges
    read: {{type: mqtt, url: "mqtt://127.0.0.1:{server.port}", topic: "gauges/+", username: whenthen, password: "file:{secret}"}}
    map: {{event: gauge.read, resource: {{id: "gauge.{{{{ body.n }}}}"}}, id: $.body.n}}
"""
    try:
        async with reading(tmp_path, text) as here:
            await here.becomes("gauges", "reading")
            await publish_mqtt(server.port, 1, **login)
            await here.come(1)
            let_in(admin="admin", whenthen="two")
            server.reload()
            await here.becomes("gauges", "trouble", "check `url`, `username` and `password`")
            await tried_again(here, "gauges")
            assert len(said(caplog, "MQTT can not be read")) <= 2  # that the connection went, and that it is refused
            await publish_mqtt(server.port, 2, **login)
            secret.put("two")
            await here.come(2)
            await here.becomes("gauges", "reading")
    finally:
        server.kill()
