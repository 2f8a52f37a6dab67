"""Named tokens and the login of browsers, with a real server and the commands that people type."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import stat
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests import forks
from tests.patience import eventually
from tests.plain_http import plain_client
from tests.ports import free_port

from .conftest import Serving, environment, installed_python, run_command

RULES = {"rules.yaml": "automations: [{name: paid, trigger: {expect: order.paid}, actions: do-nothing}]"}


def stored_bytes(folder: Path) -> bytes:
    """Everything that lies in a data directory."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_token_does_what_its_scopes_say_until_it_is_revoked(serving: Callable[..., Serving]) -> None:
    server = serving(RULES)
    value = server.run("tokens", "create", "shop", "--scope", "emit", "--expires", "30d").strip()
    assert re.fullmatch(r"wt_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", value), "the value alone"
    shop = {"WHENTHEN_URL": server.url, "WHENTHEN_API_TOKEN": value}
    emit = ("emit", "order.paid", "-r", "id=1")
    assert run_command(*emit, env=shop).returncode == 0
    lists = run_command("events", env=shop)
    assert lists.returncode == 1
    assert "this needs the scope read, and the token shop has emit" in lists.stderr

    (listed,) = server.json("tokens")
    assert (listed["name"], listed["scopes"], listed["created_by"]) == ("shop", ["emit"], "127.0.0.1")
    assert "shop" in server.run("tokens", "list")
    twice = server.refuse("tokens", "create", "shop", "--scope", "admin")
    assert "there is a token shop already" in twice
    assert "a list of one or more of read, emit, operate, admin" in server.refuse(
        "tokens", "create", "x", "--scope", "root"
    )
    assert "is no name of a token" in server.refuse("tokens", "create", "a\x1b[31mb", "--scope", "read")

    assert server.run("tokens", "revoke", "shop") == "the token shop is revoked\n"
    refused = run_command(*emit, env=shop)
    assert refused.returncode == 1
    assert "it was revoked" in refused.stderr
    assert "no token is named 'shop'" in server.refuse("tokens", "revoke", "shop")

    def kinds() -> set[str]:
        return {item["kind"] for item in server.json("audit")}

    eventually(lambda: kinds() >= {"token-created", "token-used", "token-revoked", "request-refused"})
    reasons = {item["cause"] for item in server.json("audit", "--kind", "request-refused")}
    assert reasons == {"missing_scope", "unauthorized"}
    server.stop()
    secret = value.split("_", 2)[2].encode()
    everything = stored_bytes(server.data_dir) + (server.log + server.screen).encode()
    assert secret not in everything
    assert b"token-created" in everything, "what is looked through is what was written"


def test_commands_of_a_named_token_are_on_record_under_its_name(serving: Callable[..., Serving]) -> None:
    server = serving(RULES)
    value = server.run("tokens", "create", "night-shift", "--scope", "operate", "--scope", "read").strip()
    env = {"WHENTHEN_URL": server.url, "WHENTHEN_API_TOKEN": value}
    assert run_command("automations", "pause", "paid", env=env).returncode == 0
    eventually(lambda: server.json("audit", "--kind", "automation-paused"))
    (note,) = server.json("audit", "--kind", "automation-paused")
    assert (note["who"], note["what"]) == ("night-shift at 127.0.0.1", "paid")


def test_a_browser_stays_logged_in_while_the_server_starts_again(serving: Callable[..., Serving]) -> None:
    server = serving(RULES)
    address = server.run("open", "--print").strip()
    assert address.startswith(f"{server.url}/login?once=")
    with plain_client(base_url=server.url) as browser, plain_client() as late:
        page = browser.get(address)
        assert page.status_code == 200
        assert late.get(address).status_code == 401
        assert browser.get("/api/session").json()["token"] == "api-token"
        server.stop()
        server.start()
        proof = browser.get("/api/session").json()["csrf_token"]
        pause = "/api/automations/paid/pause"
        assert browser.post(pause, headers={"Origin": server.url}).status_code == 403
        assert browser.post(pause, headers={"Origin": server.url, "X-CSRF-Token": proof}).status_code == 200
        assert browser.post("/logout", headers={"Origin": server.url, "X-CSRF-Token": proof}).status_code == 200
        assert browser.get("/api/session").status_code == 401
    code = address.partition("=")[2]
    assert code not in server.log + server.screen
    assert code.partition(".")[2].encode() not in stored_bytes(server.data_dir)


def test_an_answer_that_goes_on_ends_with_the_token_or_the_session(serving: Callable[..., Serving]) -> None:
    server = serving(RULES)
    value = server.run("tokens", "create", "watcher", "--scope", "read").strip()
    with server.client() as own, plain_client(base_url=server.url) as browser:
        proof = browser.post("/login", json={"token": value}).json()["csrf_token"]
        watcher = {"Authorization": f"Bearer {value}"}
        with own.stream("GET", "/api/stream") as owns:
            for headers, end in (
                ({}, lambda: browser.post("/logout", headers={"Origin": server.url, "X-CSRF-Token": proof})),
                (watcher, lambda: server.run("tokens", "revoke", "watcher")),
            ):
                with browser.stream("GET", "/api/stream", headers=headers) as told:
                    assert told.status_code == 200
                    parts = told.iter_raw()
                    assert next(parts)
                    end()
                    assert b"order.paid" not in b"".join(parts), "it ends, and not for a time that is over"
                assert browser.get("/api/stream", headers=headers).status_code == 401
            server.run("emit", "order.paid", "-r", "id=1")
            assert any(b"order.paid" in part for part in owns.iter_raw())


@pytest.mark.parametrize("starts", [True, False])
def test_open_gives_the_browser_a_file_and_not_the_address(
    serving: Callable[..., Serving], tmp_path: Path, starts: bool
) -> None:
    server = serving(RULES)
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\nexit {0 if starts else 1}\n')
    browser.chmod(0o755)
    env = {
        "WHENTHEN_URL": server.url,
        **server.env,
        "BROWSER": f"{browser} %s",
        "WHENTHEN_API_TOKEN": f"file:{server.data_dir}/api-token",
    }
    state = tmp_path / "state"
    done = run_command("open", env={**env, "XDG_STATE_HOME": str(state)})
    assert done.returncode == 0, done.stderr
    (argument,) = (tmp_path / "arguments").read_text().split()
    file = state / "whenthen" / "open.html"
    assert argument == file.as_uri()
    assert (server.url in done.stdout, "login?once" in done.stdout) == (True, not starts)
    if not starts:
        assert not file.exists()
        return
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = re.search(r'url=([^"]+)"', file.read_text())
    assert found is not None
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    with plain_client() as client:
        assert client.get(found[1], headers=link).status_code == 200


def test_serve_prints_the_address_to_people_at_a_terminal_alone(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    assert "login?once" not in serving(RULES).screen
    (tmp_path / "rules.yaml").write_text(RULES["rules.yaml"])
    ours, theirs = pty.openpty()
    words = ["serve", str(tmp_path / "rules.yaml"), "--port", str(free_port()), "--data-dir", str(tmp_path / "data")]
    with (tmp_path / "log").open("wb") as log, open(theirs, "wb", buffering=0) as terminal:
        process = forks.start(
            words,
            env=environment(),
            cwd=tmp_path,
            stdout=terminal,
            stderr=log,
            start_new_session=True,
            python=installed_python(),
        )
    try:
        os.set_blocking(ours, False)
        screen = bytearray()

        def printed() -> bool:
            with contextlib.suppress(BlockingIOError):
                screen.extend(os.read(ours, 65536))
            return b"Ctrl-C drains" in screen

        eventually(printed, within_s=60)
        found = re.search(rb"http://\S+/login\?once=\S+", bytes(screen))
        assert found is not None, screen
        with plain_client() as client:
            assert client.get(found[0].decode()).status_code == 200
            assert client.get(found[0].decode()).status_code == 401
    finally:
        process.terminate()
        process.wait()
        os.close(ours)


def test_a_head_with_a_token_of_a_megabyte_is_refused_before_it_is_read(serving: Callable[..., Serving]) -> None:
    server = serving(RULES)
    with plain_client(base_url=server.url) as client:
        with contextlib.suppress(httpx.WriteError):  # it was answered and closed while the rest was sent
            assert client.get("/api/status", headers={"authorization": "Bearer " + "a" * 1_000_000}).status_code == 431
        assert client.post("/login", json={"token": "a" * 1_000_000}).status_code == 413
    assert server.json("automations")
