"""The settings of one process: from flags, environment variables (`WHENTHEN_...`) and a file, in that order of precedence.

Loaded once by the command line and passed to the wiring. The file is `whenthen.toml` or `whenthen.yaml` in the data directory
or the working directory, or the one that `config` names. Every field is an environment variable and a key of the file.
`make docs` writes docs/settings.md from the fields and their docstrings.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from whenthen.engine.bus.streams import NEEDED_ENGINE_BYTES
from whenthen.rules import explain, read_document
from whenthen.schemas.actions import ProxyUrl, Tls
from whenthen.schemas.base import DocumentedModel, SecretRef
from whenthen.schemas.errors import SetupError, path_text
from whenthen.schemas.times import Duration

__all__ = ["FILE_NAMES", "Settings", "load_settings", "parse_bytes"]

FILE_NAMES = ("whenthen.toml", "whenthen.yaml", "whenthen.yml")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
#: what the settings file holds, while `load_settings` makes settings of it
_FROM_FILE: ContextVar[dict[str, Any] | None] = ContextVar("settings_from_file", default=None)


def parse_bytes(value: Any) -> Any:
    """A number of bytes: 4000000, `4MB`, `1.5GiB`; -1 or `unlimited` for no limit.

    Raises:
        ValueError: not a size; the message has the remedy.
    """
    if isinstance(value, str):
        if value.strip().lower() == "unlimited":
            return -1
        found = re.fullmatch(r"(-?\d{1,18}(?:\.\d{1,6})?)\s*([kmgt]i?)?b?", value.strip().lower(), re.ASCII)
        if found is None:
            raise ValueError(f"{value[:40]!r} is not a size; write 4MB, 512MiB, 10GB or a number of bytes")
        return int(float(found[1]) * _UNITS[found[2] or ""])
    return value


Bytes = Annotated[int, BeforeValidator(parse_bytes)]


def _rules_from(value: Any) -> Any:
    """`files, api` however it is spaced and ordered, or as a list."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        return value
    names = {part.strip() for part in parts}
    return "files, api" if names == {"files", "api"} else ", ".join(sorted(names))


RulesFrom = Annotated[Literal["files", "files, api"], BeforeValidator(_rules_from)]


def _enough_for_commits(value: int) -> int:
    if 0 <= value < NEEDED_ENGINE_BYTES:
        raise ValueError(f"{value} bytes hold less than eight commits; set 32MiB or more, or -1 for no limit")
    return value


def _enough_for_rules(value: int) -> int:
    if 0 <= value < 16 << 20:
        raise ValueError(f"{value} bytes hold few sets of rules; set 16MiB or more, or -1 for no limit")
    return value


class Settings(DocumentedModel, BaseSettings):
    """All settings of a process. Durations are written like `5m`, sizes like `4MB`."""

    model_config = SettingsConfigDict(env_prefix="WHENTHEN_", env_ignore_empty=True, extra="forbid", frozen=True)

    data_dir: Path = Path(".whenthen")
    """Directory of the embedded NATS server's streams and of the lock that one process at a time holds."""
    config: Path | None = None
    """A settings file (TOML or YAML) to load instead of whenthen.toml or whenthen.yaml."""
    nats_url: str | None = Field(default=None, max_length=4096)
    """URL of a NATS server (`nats://host:4222`), several separated by commas. Without it an embedded server is started."""
    nats_credentials: Path | None = None
    """A NATS credentials file: a `.creds`, or `nats/credentials` in the data directory of a `whenthen serve` on this machine. Left out, that file in `data_dir` is used when its server is the one at `nats_url`."""
    host: str = Field(default="127.0.0.1", min_length=1, max_length=255)
    """The address that the HTTP server listens on. Any other than loopback requires `api_token`."""
    port: int = Field(default=4280, ge=0, le=65535)
    """The port that the HTTP server listens on; 0 selects a free one."""
    monitoring_host: str = Field(default="127.0.0.1", min_length=1, max_length=255)
    """The address at which a process without the role `api` serves `/metrics`, `/healthz` and `/readyz`: over plain HTTP and without a token, so one that only the monitoring reaches. A name by which it is asked for belongs in `public_url`."""
    monitoring_port: int | None = Field(default=None, ge=0, le=65535)
    """The port of `monitoring_host`; 0 selects a free one. Left out: 4281, or a free one when that is taken. When it is set, a process with the role `api` serves them there, too."""
    api_token: SecretStr | None = None
    """The bearer token of requests to `/api` that may do everything, at least 16 characters; or a reference to it, `file:/path` or `env:NAME`. `whenthen tokens` makes further ones, with scopes. Without it `whenthen serve` makes one at its first start, in the file `api-token` of the data directory, which commands of the same user find."""
    open_loopback: bool = False
    """Whether `/api` is served without a token, on loopback, when `api_token` is not set. Every user and program of this machine can then run deployments, and with `rules_from: files, api` any command, with the rights of this process."""
    session_lasts: Duration = Field(default=timedelta(hours=12), ge=timedelta(minutes=1), le=timedelta(days=30))
    """How long a browser stays logged in."""
    rules_from: RulesFrom | None = None
    """Who may put rules in force: only who writes the files that a process was started on (`files`), or also requests to `/api/rules` (`files, api`): `whenthen apply` with rules of its own and `whenthen rollback`. Rules start commands. Left out: `files, api` where the process has no rules folder, or its token is its user's own, as it listens on loopback without `public_url` or `open_loopback`; else `files`."""
    public_url: str | None = Field(default=None, max_length=4096)
    """The URL that the server is reached at (`https://automation.example`), several separated by commas. Requests with another Host or Origin are refused, but for loopback, the address that it listens on, and `/hooks`. The first one is where links in messages lead to (`url_of`), so executors need it, too."""
    tls_certificate: Path | None = None
    """The server's certificate with its chain, PEM; with it HTTP is spoken over TLS alone. A changed file is read again within a minute."""
    tls_key: Path | None = None
    """The key of `tls_certificate`, PEM without a passphrase; left out: it is in the same file."""
    body_limit: Bytes = Field(default=4_000_000, ge=1024, le=64_000_000)
    """The largest request body; a larger one is answered 413."""
    trusted_proxies: str | None = Field(default=None, max_length=4096)
    """The addresses or networks of proxies before the server (`10.0.0.7, 10.1.0.0/16`), whose `X-Forwarded-For` says where a request comes from, for the `rate_limit` of webhooks."""
    bodies_limit: Bytes = Field(default=256_000_000, ge=1024)
    """The bytes of all request bodies that are read or worked on at one time, and of the events made of them; a request beyond is answered 503."""
    connections: int = Field(default=4096, ge=1, le=1_000_000)
    """The most HTTP connections at one time, and at most three quarters of the process's open files (`ulimit -n`); one more is answered 503 and closed."""
    head_timeout: Duration = Field(default=timedelta(seconds=10), ge=timedelta(milliseconds=100))
    """How long the request line and the headers may take, and a new connection may stay silent; then the answer is 408."""
    body_timeout: Duration = Field(default=timedelta(seconds=30), ge=timedelta(milliseconds=100))
    """How long a request body may take after its headers (then the answer is 408), and an answer may wait to be read."""
    keep_alive: Duration = Field(default=timedelta(seconds=75), ge=timedelta(seconds=1))
    """How long a connection without a request stays open."""
    stream_clients: int = Field(default=100, ge=0, le=10_000)
    """The most clients of `/api/stream` (`whenthen watch`) at one time; one more is answered 503. What waits for one takes a MiB at most."""
    events_per_request: int = Field(default=1000, ge=1, le=100_000)
    """The most events in one request to `/api/events`."""
    allow_reserved_names: bool = False
    """Whether events sent to `/api/events` may be called like the engine's own, such as `flow-run.Failed`."""
    publish_timeout: Duration = timedelta(seconds=5)
    """How long a request waits for JetStream's acknowledgement before it is answered 503."""

    duplicate_window: Duration = Field(default=timedelta(minutes=10), ge=timedelta(minutes=2))
    """How long JetStream deduplicates events by id. Each event in the window takes about 150 bytes of NATS's memory."""
    retain_events: Duration = timedelta(days=7)
    """How long events are kept in the stream `EVENTS`."""
    retain_events_bytes: Bytes = Field(default=10_000_000_000, ge=-1)
    """The size limit of `EVENTS`. Near it the oldest evaluated events are purged; at it new events are answered 503."""
    retain_firings: Duration = timedelta(days=7)
    """How long firings are kept in the stream `ENGINE`."""
    retain_decisions: Duration = timedelta(days=7)
    """How long decisions are kept in the stream `DECISIONS`."""
    retain_decisions_bytes: Bytes = Field(default=1_000_000_000, ge=16_000_000)
    """The size limit of `DECISIONS`; at it the oldest decisions are dropped."""
    retain_outcomes: Duration = timedelta(days=7)
    """How long outcomes of actions are kept in the stream `ENGINE`."""
    retain_runs: Duration = timedelta(days=30)
    """How long flow runs are kept after their last change."""
    retain_logs: Duration = timedelta(days=7)
    """How long the output of flow runs is kept."""
    retain_logs_bytes: Bytes = Field(default=1_000_000_000, ge=-1)
    """The size limit of the output of all flow runs; at it the oldest lines are dropped."""
    retain_task_runs_bytes: Bytes = Field(default=500_000_000, ge=-1)
    """The size limit of the states of task runs, which are kept as long as flow runs; at it the oldest states are dropped."""
    retain_artifacts_bytes: Bytes = Field(default=500_000_000, ge=-1)
    """The size limit of the artifacts of runs, which are kept as long as flow runs; at it the oldest are dropped."""
    engine_bytes: Annotated[Bytes, AfterValidator(_enough_for_commits)] = Field(default=10_000_000_000, ge=-1)
    """The size limit of `ENGINE` (windows, firings, action tasks, outcomes). Near it the oldest firings and outcomes are purged. At least 32 MiB, eight
    of the largest commits."""
    rules_bytes: Annotated[Bytes, AfterValidator(_enough_for_rules)] = Field(default=1_000_000_000, ge=-1)
    """The size limit of `RULES` (the last 100 revisions of the rules, compressed; files that did not change are kept once). At it rules are not
    published. At least 16 MiB."""
    history: SecretStr | None = None
    """The PostgreSQL database of the history, `postgresql://user@host/database` (extra `postgres`). Left out: SQLite, in the file `history.db` of the data directory."""
    history_events: Duration = timedelta(days=30)
    """How long events are kept in the history."""
    history_decisions: Duration = timedelta(days=30)
    """How long decisions are kept in the history."""
    history_firings: Duration = timedelta(days=90)
    """How long firings, actions and their tries are kept in the history."""
    history_runs: Duration = timedelta(days=90)
    """How long flow runs and their states are kept in the history, after their last change."""
    history_audit: Duration = timedelta(days=365)
    """How long the audit trail is kept in the history."""
    history_tallies: Duration = timedelta(days=400)
    """How long counts by hour are kept in the history."""
    disk_reserve: Bytes = Field(default=256_000_000, ge=0)
    """With the embedded NATS server: events are answered 503 while less than this is free on its disk."""

    shards: int = Field(default=1, ge=1, le=256)
    """The number of shards that the automations are divided into. The same in all processes; it can not change later."""
    replicas: int = Field(default=1, ge=1, le=5)
    """Replicas of each stream and bucket in a NATS cluster: 1, 3 or 5. The same in all processes."""
    lease: Duration = timedelta(seconds=3)
    """How long a shard's lease is valid without renewal."""
    follows_wait: Duration = timedelta(minutes=2)
    """How long an event is held for the predecessor that its `follows` names."""
    rules_file_grace: Duration = timedelta(seconds=10)
    """How long what is in a rules file stays in force after the file went away or was emptied; `0s` for not at all."""
    orphans_kept: Duration = timedelta(days=7)
    """How long the windows of an automation that is not in the rules are kept, by the time of the events."""
    max_depth: int = Field(default=8, ge=1, le=1000)
    """The longest chain of firings, each caused by the one before; the next firing is stopped."""
    decisions_kept: int = Field(default=20, ge=0, le=1000)
    """The number of decisions that are kept of each automation and each reason. Their counts, and each `fired` in the stream `DECISIONS`, are kept in any case."""
    action_concurrency: int = Field(default=64, ge=1, le=10_000)
    """The concurrency limit of actions in one executor."""
    target_concurrency: int = Field(default=16, ge=1, le=10_000)
    """The concurrency limit of actions on one target (a host, a notifier) in one executor."""
    refuse_private: bool = False
    """Whether call-webhook is kept from loopback, private networks and every other address that is not public."""
    action_proxy: ProxyUrl | None = None
    """The proxy of call-webhook: `http://host:port`; `env:NAME` or `file:/path` for one with a user and a password."""
    action_ca: SecretRef | None = None
    """The authorities that call-webhook trusts, in place of the public ones: a reference to PEM."""
    action_certificate: SecretRef | None = None
    """The client certificate of call-webhook: a reference to PEM."""
    action_key: SecretRef | None = None
    """Its key, without a passphrase; left out: it is in the same PEM."""
    worker_concurrency: int = Field(default=4, ge=1, le=1000)
    """The concurrency limit of flow runs for each work pool of a process."""
    worker_warm_interpreters: int = Field(default=2, ge=0, le=1000)
    """The number of interpreters of each work pool of a process that wait with their imports done; 0: each run starts its own."""
    worker_warm_memory: Bytes = Field(default=256 << 20, ge=0)
    """The memory of all interpreters of a process that wait for runs, of all its work pools together, `256MiB` by default."""
    runs_at_once: int | None = Field(default=None, ge=1, le=10_000)
    """How many flow runs a process executes at once, of all its work pools together. Left out: what `worker_concurrency` gives for each."""
    worker_lost_after: Duration = Field(default=timedelta(seconds=60), ge=timedelta(seconds=3))
    """After how long without a heartbeat a flow run is Crashed. The same in all processes."""
    executor_lost_after: Duration = Field(default=timedelta(seconds=15), ge=timedelta(seconds=1))
    """After how long without a sign of progress JetStream redelivers an action to another executor. The same in all processes."""
    drain_grace: Duration = timedelta(seconds=20)
    """How long a stopping process waits for requests, actions and flow runs before it cancels or returns them."""

    watchdog: bool = True
    """Whether a parent process starts this one again when it ends by a defect or hangs, and what hangs it twice is set aside. Linux alone. Off: for a process manager that is to see one process, and nothing is set aside."""
    hang_after: Duration = Field(default=timedelta(seconds=30), ge=timedelta(seconds=1))
    """How long the event loop may stand still, busy or blocked, before the process hangs."""

    log_format: Literal["console", "json"] = "console"
    """The format of log records: text for people, or one JSON object per line."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level of log records that are written."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What `load_settings` has read comes last."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=_FROM_FILE.get() or {})

    @property
    def loopback(self) -> bool:
        """Whether `host` is a loopback address."""
        host = self.host.strip("[]").lower()
        if host in ("localhost", "localhost.localdomain"):
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def public_urls(self) -> tuple[str, ...]:
        """`public_url`, one by one."""
        return tuple(url.strip() for url in (self.public_url or "").split(",") if url.strip())

    def rules_from_api(self, *, files: bool) -> bool:
        """Whether rules may come from requests; `files` says whether the process has a rules folder of its own."""
        if self.rules_from is not None:
            return self.rules_from == "files, api"
        return not files or (self.loopback and not self.open_loopback and not self.public_urls)

    @property
    def proxy_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """`trusted_proxies`, one by one."""
        return tuple(
            ipaddress.ip_network(text.strip(), strict=False)
            for text in (self.trusted_proxies or "").split(",")
            if text.strip()
        )

    @property
    def action_tls(self) -> Tls | None:
        """`action_ca`, `action_certificate` and `action_key` together."""
        if self.action_ca is None and self.action_certificate is None:
            return None
        return Tls(ca=self.action_ca, certificate=self.action_certificate, key=self.action_key)

    def token(self) -> str | None:
        """The API token, its reference resolved; None when it is not set.

        Raises:
            SetupError: the referenced variable or file does not exist or is empty.
        """
        if self.api_token is None:
            return None
        written = self.api_token.get_secret_value()
        if written.startswith("env:"):
            found = os.environ.get(written[4:], "")
        elif written.startswith("file:"):
            try:
                found = Path(written[5:]).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError, ValueError) as error:
                raise SetupError(f"api_token: {written[5:]} can not be read: {type(error).__name__}") from None
        else:
            return written
        if not found:
            raise SetupError(f"api_token: {written} is empty or not set")
        return found


def load_settings(flags: Mapping[str, Any] | None = None, *, cwd: Path | None = None) -> Settings:
    """Load the settings from `flags` (values that are None are ignored), the environment and a file.

    Raises:
        SetupError: one line with the remedy for each wrong value; or the server would be reachable without a token.
    """
    flags = {name: value for name, value in (flags or {}).items() if value is not None}
    path = _file(flags, cwd or Path.cwd())
    from_file = _read(path) if path is not None else {}

    given = _FROM_FILE.set(from_file)
    try:
        settings = Settings(**flags)
    except ValidationError as error:
        raise SetupError(_describe(error, flags, from_file, path)) from None
    finally:
        _FROM_FILE.reset(given)
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    token = settings.token()
    if not settings.loopback and token is None:
        raise SetupError(
            f"host {settings.host} can be reached from other machines, and there is no API token; "
            "set WHENTHEN_API_TOKEN (or api_token: file:/path), or listen on 127.0.0.1"
        )
    if token is not None and len(token) < 16:
        raise SetupError(f"the API token has {len(token)} characters; take at least 16 random ones")
    if settings.tls_key is not None and settings.tls_certificate is None:
        raise SetupError("tls_key: a key without a certificate; set tls_certificate too")
    if settings.bodies_limit < settings.body_limit:
        raise SetupError(f"bodies_limit: {settings.bodies_limit} bytes are less than one body (body_limit) may have")
    try:
        _ = settings.proxy_networks
    except ValueError as error:
        raise SetupError(f"trusted_proxies: {error}; write addresses or networks such as 10.1.0.0/16") from None
    for url in settings.public_urls:
        if not _is_web_url(url):
            raise SetupError(f"public_url: {url[:200]!r} is not a URL; write https://name, or http://name:port")
    if settings.open_loopback and not settings.loopback:
        raise SetupError(f"open_loopback: host {settings.host} is not loopback; set api_token and take it away")
    if settings.action_key is not None and settings.action_certificate is None:
        raise SetupError("action_key: a key without a certificate; set action_certificate too")
    if settings.replicas not in (1, 3, 5):
        raise SetupError(f"replicas: {settings.replicas} copies can not agree better than one fewer; take 1, 3 or 5")
    if settings.replicas > 1 and settings.nats_url is None:
        raise SetupError("replicas: the embedded NATS server is one server; name a cluster with --nats for more copies")


def _is_web_url(url: str) -> bool:
    try:
        split = urlsplit(url)
        return split.scheme in ("http", "https") and bool(split.hostname) and split.port != 0 and not split.username
    except ValueError:
        return False


def _file(flags: Mapping[str, Any], cwd: Path) -> Path | None:
    named = flags.get("config") or os.environ.get("WHENTHEN_CONFIG")
    if named:
        return cwd / str(named)
    data_dir = cwd / str(flags.get("data_dir") or os.environ.get("WHENTHEN_DATA_DIR") or ".whenthen")
    for folder in (data_dir, cwd):
        for name in FILE_NAMES:
            if (folder / name).is_file():
                return folder / name
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path}: the settings can not be read: {error.strerror}") from None
    if path.suffix == ".toml":
        try:
            return tomllib.loads(raw.decode("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SetupError(f"{path}: not TOML: {error}") from None
    document = read_document(raw)
    if document.faults:
        faults = "\n".join(f"{path}:{fault.line}:{fault.column}: {fault.detail}" for fault in document.faults)
        raise SetupError(faults)
    if document.data is not None and not isinstance(document.data, dict):
        raise SetupError(f"{path}: settings are a mapping, such as `port: 4280`")
    return document.data or {}


def _describe(error: ValidationError, flags: Mapping[str, Any], from_file: Mapping[str, Any], path: Path | None) -> str:
    environment = {
        name: os.environ[key] for name in Settings.model_fields if (key := f"WHENTHEN_{name.upper()}") in os.environ
    }
    lines = []
    secret = {"api_token": "***"}
    values = {**from_file, **environment, **flags}
    values.update({key: value for key, value in secret.items() if key in values})
    for item in explain(error.errors(include_url=False, include_input=False), values, Settings):
        name = str(item.path[0]) if item.path else ""
        if name in flags:
            where = f"--{name.replace('_', '-')}"
        elif name in environment:
            where = f"WHENTHEN_{name.upper()}"
        else:
            where = f"{path}: {path_text(item.path)}"
        lines.append(f"{where}: {item.detail}")
    return "\n".join(lines)
