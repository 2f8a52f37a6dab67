"""Logs carry ids and no secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whenthen.engine.process.log_output import ConsoleFormatter, JsonFormatter, configure_logs

SECRET = "hunter2-hunter2"


def redact(text: str) -> str:
    return text.replace(SECRET, "***")


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(form: str, restored: None) -> str:
    out = io.StringIO()
    configure_logs(form=form, level="debug", redact=redact, stream=out)
    log = logging.getLogger("whenthen.engine.test")
    log.info(
        "took %s",
        SECRET,
        extra={"event": "e1", "firing": "f1", "url": f"https://u:{SECRET}@h", "deep": {"a": [SECRET]}},
    )
    try:
        raise ValueError(f"bad {SECRET}")
    except ValueError:
        log.exception("it failed")
    log.error("bad %s %s arguments", *[SECRET])
    return out.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_secret_is_in_message_arguments_fields_or_traceback(form: str, restored: None) -> None:
    text = logged(form, restored)
    assert SECRET not in text
    assert text.count("***") >= 4
    assert "ValueError" in text


def test_a_json_line_has_ids_as_fields(restored: None) -> None:
    lines = [json.loads(line) for line in logged("json", restored).splitlines()]
    assert lines[0]["event"] == "e1"
    assert lines[0]["firing"] == "f1"
    assert lines[0]["level"] == "info"
    assert lines[0]["message"] == "took ***"
    assert lines[1]["error"].endswith("ValueError: bad ***")


def test_a_console_line_ends_with_the_ids(restored: None) -> None:
    line = logged("console", restored).splitlines()[0]
    assert "engine.test  took ***  event=e1  firing=f1" in line


def test_levels_are_kept_and_chatty_libraries_told_from_warning_on(restored: None) -> None:
    out = io.StringIO()
    configure_logs(level="info", stream=out)
    logging.getLogger("whenthen.x").debug("hidden")
    logging.getLogger("httpx").info("hidden")
    logging.getLogger("alembic.runtime.plugins").info("hidden")
    logging.getLogger("httpx").warning("shown")
    assert out.getvalue().count("\n") == 1


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_has_the_trace_of_what_it_is_about(form: str, restored: None) -> None:
    out = io.StringIO()
    configure_logs(form=form, stream=out)
    logging.getLogger("whenthen.x").warning("fired", extra={"trace": "4bf92f3577b34da6a3ce929d0e0e4736"})
    line = out.getvalue()
    assert ('"trace":"4bf92f3577b34da6a3ce929d0e0e4736"' if form == "json" else "trace=4bf92f3577b34da6") in line


@pytest.mark.parametrize("name", ["aiokafka.conn", "aiormq.connection", "aio_pika.tools", "zmqtt.client"])
def test_a_client_whose_broker_is_away_says_so_once_a_minute(name: str, restored: None) -> None:
    out = io.StringIO()
    configure_logs(stream=out)
    for _ in range(5):
        logging.getLogger(name).error("no connection")
    assert out.getvalue().count("no connection") == 1


def test_an_exporter_whose_receiver_is_away_says_so_once_a_minute(restored: None) -> None:
    out = io.StringIO()
    configure_logs(stream=out)
    for _ in range(50):
        logging.getLogger("opentelemetry.exporter.x").error("failed to export")
        logging.getLogger("whenthen.x").error("ours")
    assert out.getvalue().count("failed to export") == 1
    assert out.getvalue().count("ours") == 50


@given(message=st.text(), value=st.text() | st.integers() | st.binary() | st.none() | st.lists(st.integers()))
def test_anything_can_be_logged_on_one_line(message: str, value: Any) -> None:
    record = logging.makeLogRecord({"msg": message, "args": (), "name": "n", "thing": value})
    line = JsonFormatter(redact).format(record)
    assert "\n" not in line
    json.loads(line)
    ConsoleFormatter(redact).format(record).encode()
