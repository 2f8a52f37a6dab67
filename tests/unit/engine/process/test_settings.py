"""Settings from flags, environment and a file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from whenthen.engine.process.settings import load_settings, parse_bytes
from whenthen.schemas.errors import SetupError

TOKEN = "a-token-of-some-length"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("WHENTHEN_"):
            monkeypatch.delenv(name)


def test_the_defaults_are_safe(tmp_path: Path) -> None:
    settings = load_settings(cwd=tmp_path)
    assert (settings.host, settings.port, settings.body_limit, settings.max_depth) == ("127.0.0.1", 4280, 4_000_000, 8)
    assert settings.token() is None


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whenthen.toml").write_text(
        'port = 1\nshards = 2\nmax_depth = 3\nretain_events = "2d"\nbody_limit = "2MB"\n'
    )
    monkeypatch.setenv("WHENTHEN_PORT", "10")
    monkeypatch.setenv("WHENTHEN_SHARDS", "20")
    settings = load_settings({"port": 100, "host": None}, cwd=tmp_path)
    assert (settings.port, settings.shards, settings.max_depth) == (100, 20, 3)
    assert settings.retain_events == timedelta(days=2)
    assert settings.body_limit == 2_000_000


def test_a_yaml_file_in_the_data_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / ".whenthen").mkdir()
    (tmp_path / ".whenthen" / "whenthen.yaml").write_text("port: 5000\n")
    (tmp_path / "whenthen.toml").write_text("port = 1\n")
    assert load_settings(cwd=tmp_path).port == 5000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prot = 1", 'prot: unknown field; did you mean "port"?'),
        ("port = 70000", "port: wanted at most 65535, found the number 70000"),
        ('retain_events = "soon"', "retain_events: 'soon' is not a duration"),
        ('body_limit = "lots"', "body_limit: 'lots' is not a size; write 4MB"),
        ("port = ", "not TOML"),
        ('log_format = "xml"', "log_format: wanted console or json"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_the_remedy(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "whenthen.toml").write_text(text)
    with pytest.raises(SetupError) as refused:
        load_settings(cwd=tmp_path)
    assert expected in str(refused.value)
    assert "whenthen.toml" in str(refused.value)


def test_every_wrong_value_is_told_with_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENTHEN_SHARDS", "many")
    with pytest.raises(SetupError) as refused:
        load_settings({"body_limit": "x"}, cwd=tmp_path)
    assert 'WHENTHEN_SHARDS: wanted a whole number, found the text "many"' in str(refused.value)
    assert "--body-limit: 'x' is not a size" in str(refused.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_an_address_that_others_can_reach_needs_a_token(tmp_path: Path, host: str) -> None:
    with pytest.raises(SetupError, match="there is no API token; set WHENTHEN_API_TOKEN"):
        load_settings({"host": host}, cwd=tmp_path)
    assert load_settings({"host": host, "api_token": TOKEN}, cwd=tmp_path).token() == TOKEN


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost", "[::1]"])
def test_loopback_needs_none(tmp_path: Path, host: str) -> None:
    assert load_settings({"host": host}, cwd=tmp_path).loopback


def test_a_token_can_be_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    monkeypatch.setenv("OUR_TOKEN", TOKEN)
    for written in (f"file:{file}", "env:OUR_TOKEN"):
        assert load_settings({"host": "0.0.0.0", "api_token": written}, cwd=tmp_path).token() == TOKEN
    for written in (f"file:{tmp_path}/none", "env:NO_SUCH_TOKEN"):
        with pytest.raises(SetupError, match="api_token"):
            load_settings({"host": "0.0.0.0", "api_token": written}, cwd=tmp_path)


def test_a_short_token_is_refused_and_a_token_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="at least 16") as refused:
        load_settings({"api_token": "hunter2"}, cwd=tmp_path)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(SetupError) as refused:
        load_settings({"api_token": ["hunter2"], "port": -1}, cwd=tmp_path)
    assert "hunter2" not in str(refused.value)
    assert "hunter22" not in repr(load_settings({"api_token": "hunter22" * 3}, cwd=tmp_path))


def test_copies_need_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="one server"):
        load_settings({"replicas": 3}, cwd=tmp_path)
    with pytest.raises(SetupError, match="take 1, 3 or 5"):
        load_settings({"replicas": 2, "nats_url": "nats://x"}, cwd=tmp_path)


@pytest.mark.parametrize(
    ("text", "size"), [("4MB", 4_000_000), ("1KiB", 1024), ("1.5 g", 1_500_000_000), ("12", 12), ("unlimited", -1)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_a_proxy_with_credentials_is_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENTHEN_ACTION_PROXY", "http://user:hush-hush@proxy:3128")
    with pytest.raises(SetupError, match=r"WHENTHEN_ACTION_PROXY: .*env:NAME or file:/path") as caught:
        load_settings(cwd=tmp_path)
    assert "hush" not in str(caught.value)
    monkeypatch.setenv("WHENTHEN_ACTION_PROXY", "env:PROXY")
    assert load_settings(cwd=tmp_path).action_proxy == "env:PROXY"


def test_the_key_of_outgoing_requests_needs_its_certificate(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="action_key: a key without a certificate"):
        load_settings({"action_key": "env:KEY"}, cwd=tmp_path)
    with pytest.raises(SetupError, match="--action-ca: a secret is a reference"):
        load_settings({"action_ca": "/etc/ca.pem"}, cwd=tmp_path)
    assert load_settings(cwd=tmp_path).action_tls is None
    tls = load_settings({"action_ca": "file:/ca.pem", "action_certificate": "env:BOTH"}, cwd=tmp_path).action_tls
    assert tls is not None
    assert (tls.ca, tls.certificate, tls.key) == ("file:/ca.pem", "env:BOTH", None)


TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
    ("given", "files", "expected"),
    [
        ({}, True, True),
        ({"api_token": TOKEN}, True, True),
        ({"open_loopback": True}, True, False),
        ({"api_token": TOKEN, "public_url": "https://automation.example"}, True, False),
        ({"api_token": TOKEN, "host": "0.0.0.0"}, True, False),
        ({"api_token": TOKEN, "host": "0.0.0.0"}, False, True),
        ({"api_token": TOKEN, "host": "0.0.0.0", "rules_from": "api,files"}, True, True),
        ({"rules_from": ["files", "api"]}, True, True),
        ({"rules_from": "files"}, True, False),
        ({"rules_from": "files"}, False, False),
    ],
)
def test_requests_may_put_rules_in_force_where_the_token_is_the_users_own(
    tmp_path: Path, given: dict[str, object], files: bool, expected: bool
) -> None:
    assert load_settings(given, cwd=tmp_path).rules_from_api(files=files) is expected


@pytest.mark.parametrize("wrong", ["api", "file", "files, api, x", ""])
def test_rules_come_from_files_at_least(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(SetupError, match="--rules-from: wanted files or files, api"):
        load_settings({"rules_from": wrong}, cwd=tmp_path)
