"""Logins and TLS of Kafka: a gate that speaks the part of the protocol which comes before everything else, and brokers behind it."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.integration.authority import Authority
from tests.integration.sources.kafka import cluster
from tests.integration.sources.kafka_gate import LoginRefused, Scram, gate
from tests.integration.sources.reading import Reading, reading
from tests.patience import until

pytestmark = pytest.mark.anyio


def rules(port: int, more: str, host: str = "127.0.0.1") -> str:
    return f"sources:\n  - {{name: orders, read: {{type: kafka, servers: '{host}:{port}', topic: orders{more}}}}}\n"


async def says(here: Reading, text: str) -> None:
    async def said() -> bool:
        runner = here.server._running._sources  # type: ignore[union-attr]
        return runner is not None and "orders" in runner.watches and text in runner.watches["orders"].detail

    await until(said, within_s=60)


async def test_login_that_is_refused_is_said_and_its_password_read_again(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("wrong\n")
    async with gate() as server:
        login = f", username: reader, password: 'file:{password}'"
        async with reading(tmp_path, rules(server.port, login)) as here:
            await says(here, "the gate does not know this login")
            assert server.shown[0] == b"reader\0reader\0wrong"
            password.write_text("right\n")

            async def shown_anew() -> bool:
                return server.shown[-1] == b"reader\0reader\0right"

            await until(shown_anew, within_s=60)


def test_the_gates_scram_is_that_of_the_rfc() -> None:
    """RFC 7677, section 3."""
    first = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    last = f"c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    salt, rest = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), nonce[20:]
    server = Scram("SCRAM-SHA-256", "pencil", salt=salt, nonce=rest)
    assert server.answer(first) == f"r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    assert server.answer(last) == "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    other = Scram("SCRAM-SHA-256", "pencils", salt=salt, nonce=rest)
    other.answer(first)
    with pytest.raises(LoginRefused):
        other.answer(last)


@pytest.mark.takes(60)
@pytest.mark.parametrize("mechanism", ["plain", "scram-sha-256", "scram-sha-512"])
async def test_topic_behind_a_login_is_read_and_again_after_its_password_was_changed(
    tmp_path: Path, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    password = tmp_path / "password"
    password.write_text("first\n")
    login = f", username: reader, password: 'file:{password}', mechanism: {mechanism}, existing: report"
    mapping = 'map: {event: order.placed, resource: {id: "order.{{ body.n }}"}}'
    with cluster() as kafka:
        kafka.orders(*range(8))
        async with gate(mechanism=mechanism.upper(), password="first", behind=kafka.servers[0]) as server:
            text = rules(server.port, login).replace("}}\n", f"}}, {mapping}}}\n")
            async with reading(tmp_path, text) as here:
                await here.come(8, within_s=60)
                await here.becomes("orders", "reading")
                server.password = "second"
                server.turn_out()
                await here.becomes("orders", "trouble", "the gate does not know this login")
                kafka.orders(8, 9)
                password.write_text("second\n")
                events = await here.come(10, within_s=90)
                assert sorted(each["resource"]["id"] for each in events) == [f"order.{number}" for number in range(10)]
                assert (await here.becomes("orders", "reading"))["problems"] == []
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("source ")]
    assert any("the gate does not know this login" in each for each in said)
    assert not any(word in each for each in said for word in ("first", "second"))


async def test_login_that_is_refused_in_the_words_of_scram_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    password = tmp_path / "password"
    password.write_text("wrong\n")
    with cluster() as kafka:
        kafka.orders(1)
        async with gate(mechanism="SCRAM-SHA-256", behind=kafka.servers[0], in_words=True) as server:
            login = f", username: reader, password: 'file:{password}', mechanism: scram-sha-256, existing: report"
            async with reading(tmp_path, rules(server.port, login)) as here:
                await says(here, "the login is refused; check `username`, `password` and `mechanism`")
                password.write_text("right\n")
                await here.becomes("orders", "reading")
    assert not any(record.exc_info for record in caplog.records if record.name.startswith("whenthen."))


async def test_certificate_of_an_authority_that_is_not_trusted_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    login = ", username: reader, password: env:HOME, tls: "
    async with gate(authority.server("localhost")) as server:
        async with reading(tmp_path, rules(server.port, login + "true", "localhost")) as here:
            await says(here, "certificate verify failed")
            assert server.shown == []
        trusting = login + f"{{ca: 'file:{authority.ca}'}}"
        async with reading(tmp_path, rules(server.port, trusting, "localhost")) as here:
            await says(here, "the gate does not know this login")
        async with reading(tmp_path, rules(server.port, login + f"{{ca: 'file:{tmp_path}/rules.yaml'}}")) as here:
            await says(here, "`tls` is not usable")


async def test_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with gate() as server:
        port = server.port
    async with reading(tmp_path, rules(port, "")) as here:
        await says(here, f"Kafka can not be read: 127.0.0.1:{port}: ")
