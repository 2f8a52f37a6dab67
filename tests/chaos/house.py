"""The processes under test in their two forms, with receivers: `embedded` (one server, and beside it a worker and another evaluator)
and `split` (a nats-server, one process that takes requests, and two for each other role, which share its work; of those with the
history one has SQLite, and two share a PostgreSQL where the machine has one).

A house knows which of its processes may be killed, brings all of them back, and leaves none behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tests.chaos.processes import Supervised, embedded_nats, lines_of, ready, whenthen
from tests.chaos.receiver import received
from tests.chaos.scenario import SECRET, write_rules
from tests.patience import until
from tests.ports import free_ports
from tests.postgres import find_programs, postgres
from whenthen.engine.bus.datadir import embedded_url
from whenthen.engine.bus.embedded import find_server

__all__ = ["House"]

_HANGING = Path(__file__).with_name("hanging")
_MAX_PAYLOAD = {
    "embedded": 8 << 20,
    "split": 512 << 10,
}  #: of the embedded server; of the other, the least that is taken
_SHARE = ("evaluator-", "executor-", "worker-")  #: processes that may have a second one


class House:
    """Enter it to start everything. `victims` are the kinds of processes to kill, each with a function that kills one."""

    def __init__(self, folder: Path, form: str, *, hanging: bool = False) -> None:
        assert form in ("embedded", "split"), form
        self.folder = folder
        self.form = form
        self.shards = 1 if form == "embedded" else 4
        self.runs = folder / "runs.txt"
        self.data_dir = folder / "data"
        ports = free_ports(4)
        self.url = f"http://127.0.0.1:{ports[0]}"
        self._port, self._nats_port = str(ports[0]), ports[1]
        self.rules = write_rules(folder / "rules", receivers=(ports[2], ports[3]), runs=self.runs)
        self.rule_changes = 0
        self.roll_outs = 0
        self._folders = [self.rules]  #: that processes were started on, the newest last
        self._started_on: dict[str, Callable[[Path], list[str]]] = {}  #: the words of each process that has rules
        self.processes: dict[str, Supervised] = {}
        self.nats_kills = 0
        self._ended = contextlib.ExitStack()
        #: databases of the history by the processes that fill them
        self.histories: dict[str, Path | str] = {}
        self._receivers = ports[2:]
        #: some events hang whoever evaluates them, sooner found than by default
        self._hanging = {"PYTHONPATH": str(_HANGING), "WHENTHEN_HANG_AFTER": "4s"} if hanging else {}

    # -- what it is

    @property
    def nats_url(self) -> str:
        """Where NATS listens, with the login of the embedded one."""
        if self.form == "split":
            return f"nats://127.0.0.1:{self._nats_port}"
        return embedded_url(self.data_dir)

    @property
    def max_payload(self) -> int:
        """Bytes of a message that NATS takes."""
        return _MAX_PAYLOAD[self.form]

    def called(self) -> list[tuple[str, str]]:
        """Sender and key of every request that a receiver took."""
        return [one for number in (0, 1) for one in received(self.folder / f"receiver-{number}.txt")]

    def victims(self) -> dict[str, tuple[float, Callable[[], bool]]]:
        """For each kind its weight, and a kill of it that says whether there was something to kill."""
        weights = {
            "server": 4,
            "standby": 3,
            "api": 2,
            "evaluator": 4,
            "executor": 3,
            "worker": 2,
            "receiver": 2,
            "history": 3,
            "nats": 3,
        }
        kinds: dict[str, list[Supervised]] = {}
        for name, process in self.processes.items():
            kinds.setdefault(name.partition("-")[0], []).append(process)
        found: dict[str, tuple[float, Callable[[], bool]]] = {}
        for kind, processes in kinds.items():
            found[kind] = (weights[kind], _one_of(processes))
        if self.form == "embedded":
            found["nats"] = (weights["nats"], self._kill_embedded)
        return found

    def change_rules(self) -> None:
        """Write other rules, which each process on that folder sees when it looks; while two are in use, now the one, now the other."""
        self._write(self._folders[self.rule_changes % len(self._folders)])

    async def roll_out(self, chance: random.Random) -> None:
        """A rolling deploy: other rules in another folder, and each process started again on it, one after the other."""
        self.roll_outs += 1
        self.rules = self.folder / f"rules-{self.roll_outs}"
        self._folders.append(self._write(self.rules))
        for name in chance.sample(sorted(self._started_on), len(self._started_on)):
            await self.processes[name].replace(self._started_on[name](self.rules))
            await asyncio.sleep(chance.uniform(0, 2))
        self._folders = [self.rules]

    def _write(self, folder: Path) -> Path:
        self.rule_changes += 1
        first, second = self._receivers
        return write_rules(folder, receivers=(first, second), runs=self.runs, change=self.rule_changes)

    def kills(self) -> dict[str, int]:
        """How often each kind was killed."""
        counts: dict[str, int] = {"nats": self.nats_kills} if self.form == "embedded" else {}
        for name, process in self.processes.items():
            kind = name.partition("-")[0]
            counts[kind] = counts.get(kind, 0) + process.kills
        return counts

    def shared(self) -> dict[str, int]:
        """How much each process did of what two of them share: shards taken, calls made, runs executed."""
        did = Counter(sender for sender, _ in self.called())
        did.update(line.split()[-1] for line in lines_of(self.runs))
        for name, process in self.processes.items():
            if name.startswith("evaluator"):
                did[name] = sum(": taken" in line for line in lines_of(process.log))
        return {name: did[name] for name in self.processes if name.startswith(_SHARE)}

    def ended_by_themselves(self) -> dict[str, list[int]]:
        """Exit codes of processes that went away without being killed."""
        return {name: process.ended_by_itself for name, process in self.processes.items() if process.ended_by_itself}

    # -- life

    async def __aenter__(self) -> House:
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _start(self) -> None:
        for number, port in enumerate(self._receivers):
            log = self.folder / f"receiver-{number}.txt"
            words = [*whenthen()[:1], "-m", "tests.chaos.receiver", str(port), str(log)]
            self._run(f"receiver-{number}", words)
        if self.form == "embedded":
            self._serve("server", "serve", "--data-dir", self.data_dir, "--port", self._port)
            await self.ready()
            address = f"nats://127.0.0.1:{(self.data_dir / 'nats' / 'port').read_text().strip()}"
            beside = ["--nats", address, "--data-dir", self.data_dir]
            self._serve("worker-0", "worker", *beside)
            self._serve("standby", "serve", *beside, "--role", "evaluator")
            self.histories = {"server": self.data_dir / "history.db"}
            return
        config = self.folder / "nats.conf"
        store = self.folder / "store"
        config.write_text(
            f'listen: "127.0.0.1:{self._nats_port}"\nmax_payload: {self.max_payload}\n'
            f'jetstream {{ store_dir: "{store}", max_file_store: 1PB }}\n'
        )
        self._run("nats", [str(find_server()), "-c", str(config)])
        shared = ["--nats", self.nats_url, "--shards", str(self.shards)]
        self._serve("api", "serve", *shared, "--role", "api", "--port", self._port)
        for number in (0, 1):
            self._serve(f"evaluator-{number}", "serve", *shared, "--role", "evaluator")
        for number in (0, 1):
            self._serve(f"executor-{number}", "serve", *shared, "--role", "executor", "--role", "scheduler")
            self._serve(f"worker-{number}", "serve", *shared, "--role", "worker")
        self._serve_histories(shared)
        await self.ready()

    def _serve_histories(self, shared: list[str]) -> None:
        """Two processes on one PostgreSQL, where the machine has it, and one on SQLite."""
        places: dict[str, tuple[str | Path, ...]] = {"history-0": ("--data-dir", self.folder / "history-0")}
        self.histories["history-0"] = self.folder / "history-0" / "history.db"
        if find_programs() is not None:
            where = self._ended.enter_context(postgres()).database("history")
            places |= {
                name: ("--history", where, "--data-dir", self.folder / name) for name in ("history-1", "history-2")
            }
            self.histories["history-1, history-2"] = where
        for name, options in places.items():
            self._serve(name, "serve", *shared, "--role", "history", *options)

    async def ready(self, within_s: float = 180.0) -> None:
        """Wait until the HTTP side says that it does its work."""
        try:
            await ready(self.url, within_s)
        except AssertionError as error:
            name = "server" if self.form == "embedded" else "api"
            raise AssertionError(f"{error}\n{self.processes[name].said()}") from None

    def _serve(self, name: str, command: str, *options: str | Path) -> None:
        """Start a process that has rules."""

        def words(rules: Path) -> list[str]:
            return whenthen(command, rules, *options)

        self._started_on[name] = words
        self._run(name, words(self.rules))

    def _run(self, name: str, words: list[str]) -> None:
        environment = {
            "CHAOS_SECRET": SECRET,
            "CHAOS_PROCESS": name,
            "XDG_STATE_HOME": str(self.folder.resolve() / "state"),  # notes of killed servers stay here
            # the dead are missed sooner than by default, so that the end does not wait for them
            "WHENTHEN_WORKER_LOST_AFTER": "6s",
            "WHENTHEN_EXECUTOR_LOST_AFTER": "4s",
            # on a busy machine a delivery may take longer than the two minutes in which it is recognised by default
            "WHENTHEN_DUPLICATE_WINDOW": "1h",
            **self._hanging,
        }
        process = self.processes[name] = Supervised(name, words, self.folder, env=environment)
        process.start()

    def _kill_embedded(self) -> bool:
        pid = embedded_nats(self.data_dir)
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.nats_kills += 1
        return True

    async def _end(self) -> None:
        """Whoever talks to NATS first, NATS last."""
        order = sorted(self.processes.values(), key=lambda process: process.name == "nats")
        await asyncio.gather(*(process.halt() for process in order if process.name != "nats"))
        if "nats" in self.processes:
            await self.processes["nats"].halt()

        async def gone() -> bool:
            return embedded_nats(self.data_dir) is None

        self._ended.close()
        if not await gone():  # the kernel tells it that its parent is gone; one that stays is ended here
            try:
                await until(gone, within_s=10, what="the embedded nats-server ends")
            except AssertionError:
                self._kill_embedded()


def _one_of(processes: list[Supervised]) -> Callable[[], bool]:
    """A kill of the one that was killed least."""
    return lambda: min(processes, key=lambda process: process.kills).kill()
