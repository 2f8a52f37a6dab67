"""References, and the one promise: a secret's value leaves in no text."""

from __future__ import annotations

import base64
import io
import json
import logging
import random
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whenthen.actions.secrets import RedactingFilter, Redactor, Secrets, is_reference
from whenthen.schemas.errors import ActionError, NotFound


def test_references_are_told_from_values() -> None:
    assert is_reference("env:NAME")
    assert is_reference("file:/run/secrets/key with space")
    for text in ("env:", "env:1A", "env:A-B", "file:", "ENV:A", " env:A", "env:A ", "json://host", "env:A\n", ""):
        assert not is_reference(text)


def test_values_come_from_the_environment_and_from_files(tmp_path: Path) -> None:
    environ = {"A": "one"}
    secrets = Secrets(Redactor(), environ)
    assert secrets.resolve("env:A") == "one"
    environ["A"] = "two"
    assert secrets.resolve("env:A") == "two"
    path = tmp_path / "key"
    for written, read in [("v\n", "v"), ("v\r\n", "v"), ("v\n\n", "v\n"), (" v ", " v ")]:
        path.write_bytes(written.encode())
        assert secrets.resolve(f"file:{path}") == read


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "can not be read"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * 70_000, "larger"),
    ],
)
def test_an_error_names_the_reference(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "key"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(NotFound, match=message) as caught:
        Secrets(Redactor(), {}).resolve(f"file:{path}")
    assert f"file:{path}" in str(caught.value)


def test_what_is_no_reference_is_not_repeated_in_the_error() -> None:
    with pytest.raises(NotFound) as caught:
        Secrets(Redactor(), {}).resolve("pl4nted")
    assert "pl4nted" not in str(caught.value)
    with pytest.raises(NotFound, match="env:NOT_THERE"):
        Secrets(Redactor(), {}).resolve("env:NOT_THERE")


def test_every_encoding_of_a_secret_is_replaced() -> None:
    redactor = Redactor()
    value = 'p@ss "w/rd" ä+b'
    redactor.add(value)
    for form in (value, quote(value), quote(value, safe=""), json.dumps({"a": value}), repr(value)):
        found = redactor.text(f"before {form} after")
        assert "w/rd" not in found
        assert "w%2Frd" not in found
        assert found.startswith("before ")
        assert found.endswith(" after")
    assert base64.b64encode(value.encode()).decode() not in redactor.text(base64.b64encode(value.encode()).decode())


def test_the_telling_parts_of_a_url_are_replaced() -> None:
    redactor = Redactor()
    redactor.add("slack://TokenAAAA/TokenBBBB/?key=TokenCCCC")
    redactor.add("https://user:passw0rd@hooks.example.com/services/T0000000/x?token=abcdefgh")
    text = "POST /services/T0000000/x?token=abcdefgh of hooks.example.com by passw0rd: TokenAAAA TokenBBBB TokenCCCC"
    found = redactor.text(text)
    for part in ("T0000000", "abcdefgh", "passw0rd", "TokenAAAA", "TokenBBBB", "TokenCCCC"):
        assert part not in found
    assert found.startswith("POST /services/***/x?token=*** of hooks.example.com by ***")


def test_plain_words_of_a_url_are_not_masked() -> None:
    redactor = Redactor()
    redactor.add("json://deploy:pw@hooks.example.com:8080/incoming/webhook?format=markdown")
    text = "deployment of incoming webhook at hooks.example.com:8080 in markdown"
    assert redactor.text(text) == text
    assert redactor.text("with pw or deploy:pw@hooks") == "with *** or deploy:***@hooks"


def test_a_secret_that_contains_another_goes_whole() -> None:
    redactor = Redactor()
    redactor.add("secret")
    redactor.add("secret-longer")
    assert redactor.text("a secret-longer b secret c") == "a *** b *** c"


def test_a_short_secret_is_replaced_only_where_it_stands_alone() -> None:
    redactor = Redactor()
    redactor.add("abc")
    redactor.add("")
    redactor.add(" ")
    assert redactor.text("pin abc, pin=abc fabcde 'abc'") == "pin ***, pin=*** fabcde '***'"


def test_values_of_any_shape_are_redacted() -> None:
    redactor = Redactor()
    redactor.add("pl4nted")
    assert redactor.value({"a pl4nted": ["x pl4nted", 1, None, {"b": ("pl4nted",)}]}) == {
        "a ***": ["x ***", 1, None, {"b": ["***"]}]
    }


@given(
    secrets=st.lists(
        st.text(min_size=4, max_size=20).filter(lambda text: text.strip() and "*" not in text), max_size=5
    ),
    noise=st.lists(st.text(max_size=10), min_size=6, max_size=6),
    seed=st.integers(0, 10**6),
)
def test_no_known_secret_survives(secrets: list[str], noise: list[str], seed: int) -> None:
    redactor = Redactor()
    for secret in secrets:
        redactor.add(secret)
    pieces = [*noise, *secrets]
    random.Random(seed).shuffle(pieces)
    found = redactor.text("".join(pieces))
    assert not [secret for secret in secrets if secret in found]


def test_logs_hold_no_secret_in_message_arguments_traceback_or_extra_fields() -> None:
    redactor = Redactor()
    redactor.add("pl4nted")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter(redactor))
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s %(extra)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    try:
        raise ValueError("inner pl4nted")
    except ValueError:
        logger.exception("a %s and %d", "pl4nted", 7, extra={"extra": {"k": "pl4nted"}}, stack_info=True)
    text = stream.getvalue()
    assert "pl4nted" not in text
    assert "ERROR a *** and 7 {'k': '***'}" in text
    assert "ValueError: inner ***" in text


@pytest.mark.anyio
async def test_an_unexpected_error_of_a_port_is_redacted(world: Any) -> None:
    world.environ["TOKEN"] = "pl4nted-token"
    world.ports.resolve_secret("env:TOKEN")
    world.orchestrator.failure = RuntimeError("could not log in with pl4nted-token")
    with pytest.raises(ActionError, match=r"RuntimeError: could not log in with \*\*\*"):
        await world.perform({"run-deployment": "loader"})


@pytest.mark.takes(0.9)
def test_a_secret_that_is_rotated_for_ever_keeps_the_search_small() -> None:
    redactor = Redactor()
    redactor.add("a-secret-of-another-place", source="env:OTHER")
    values = [f"rotated-secret-{number:05}" for number in range(2000)]
    for value in values:
        redactor.add(value, source="file:/run/token")
    assert redactor._pattern is not None
    assert len(redactor._pattern.pattern) < 2000
    text = " ".join([*values[-8:], "a-secret-of-another-place"])
    assert redactor.text(text) == " ".join(["***"] * 9)
    assert redactor.text(values[0]) == values[0]


def test_a_value_that_another_place_still_has_stays_masked() -> None:
    redactor = Redactor()
    redactor.add("shared-secret", source="env:A")
    redactor.add("shared-secret", source="env:B")
    for number in range(20):
        redactor.add(f"rotated-secret-{number}", source="env:A")
    assert redactor.text("shared-secret") == "***"
