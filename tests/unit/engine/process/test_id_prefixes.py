"""Which id a shortened one stands for, and what is said of one that stands for none or for several."""

from __future__ import annotations

from typing import Any, cast

import pytest

from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.process.id_prefixes import MAX_IDS, IdPrefixes, candidates, choose
from whenthen.schemas.errors import (
    BusUnavailable,
    Conflict,
    InvalidInput,
    NotFound,
)

RUN = "e7f447132cef5e9d9bdc7165ad3093f1"
OTHER = "e7f44713" + "0" * 24
UUID = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
IDS = [RUN, OTHER, f"{RUN}-1", f"{RUN}-10", f"{RUN}-2", f"emitted-{RUN}.0", UUID, "signup-1", "signup-10", "abc"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (RUN, [RUN]),
        ("e7f447132", [RUN, f"{RUN}-1", f"{RUN}-10", f"{RUN}-2"]),
        ("e7f447130", [OTHER]),
        ("e7f44713-1", [f"{RUN}-1"]),
        ("e7f447-10", [f"{RUN}-10"]),
        ("e7f44-1", []),  # too little of the generated part
        ("e7f44713-", []),
        (f"{RUN}-", [f"{RUN}-1", f"{RUN}-10", f"{RUN}-2"]),
        ("emitted-e7f44713.0", [f"emitted-{RUN}.0"]),
        ("emitte", [f"emitted-{RUN}.0"]),
        ("3f2504e0", [UUID]),
        ("signup-1", ["signup-1"]),
        ("signup-1…", ["signup-1", "signup-10"]),
        ("signup-10…", ["signup-10"]),
        ("signu", []),
        ("abc", ["abc"]),
        ("…", []),
        ("", []),
    ],
)
def test_a_text_stands_for_the_exact_id_or_for_those_that_it_shortens(text: str, found: list[str]) -> None:
    assert candidates(text, IDS) == found


def test_an_ambiguous_text_is_a_conflict_that_lists_the_candidates() -> None:
    with pytest.raises(Conflict, match=f"3 ids: {RUN}-1, {RUN}-10, {RUN}-2; give more of the id"):
        choose(f"{RUN}-", IDS, "event", listed_by="x")
    many = [f"deploy-{number:03}" for number in range(100)]
    with pytest.raises(Conflict, match=r"100 ids: deploy-000, .*deploy-007 and 92 more; give more"):
        choose("deploy-", many, "event", listed_by="x")


def test_a_text_without_an_id_is_not_found_and_a_short_one_is_told_why() -> None:
    with pytest.raises(NotFound, match="there is no event 'nothing-like-it'; x"):
        choose("nothing-like-it", IDS, "event", listed_by="x")
    with pytest.raises(NotFound, match="'e7f4'; a shortened id has at least 6 characters"):
        choose("e7f4", IDS, "event", listed_by="x")


class Server:
    """Answers STREAM.INFO with `subjects`, `page` at a time."""

    def __init__(self, subjects: list[str], *, page: int = 100_000, kept: int | None = None) -> None:
        self.subjects, self.page, self.kept = subjects, page, kept
        self.asked: list[tuple[str, Any]] = []

    async def api(self, subject: str, body: Any = None) -> dict[str, Any]:
        self.asked.append((subject, body))
        kept = self.kept or len(self.subjects)
        answer: dict[str, Any] = {"state": {"num_subjects": kept} if kept else {}}  # as nats-server leaves out a zero
        if body is not None:
            shown = self.subjects[body["offset"] :][: self.page]
            answer |= {"total": len(self.subjects)}
            answer["state"]["subjects"] = dict.fromkeys(shown, 1)
        return answer


def prefixes(server: Any) -> IdPrefixes:
    return IdPrefixes(cast(RequestClient, server))


@pytest.mark.anyio
async def test_whole_ids_are_given_back_without_a_question() -> None:
    server = Server([])
    assert await prefixes(server).run(RUN) == RUN
    assert await prefixes(server).dead_letter(f"{RUN}.12") == f"{RUN}.12"
    assert server.asked == []


@pytest.mark.anyio
async def test_runs_and_dead_letters_are_found_by_their_subjects_on_all_pages() -> None:
    runs = Server([f"$KV.WT_runs.{RUN}", f"$KV.WT_runs.{OTHER}", f"$KV.WT_runs.{'0' * 32}"], page=2)
    assert await prefixes(runs).run("000000") == "0" * 32
    assert [body for _, body in runs.asked if body] == [
        {"subjects_filter": "$KV.WT_runs.>", "offset": 0},
        {"subjects_filter": "$KV.WT_runs.>", "offset": 2},
    ]
    with pytest.raises(Conflict, match=f"2 ids: {OTHER}, {RUN}"):
        await prefixes(runs).run("e7f44713")
    dead = Server([f"engine.dead.load.{RUN}.0", f"engine.dead.load.{RUN}.1", f"engine.dead.a%2Eb.{OTHER}.0"])
    assert await prefixes(dead).dead_letter("e7f447132.1") == f"{RUN}.1"
    assert await prefixes(dead).dead_letter("e7f447130") == f"{OTHER}.0"
    with pytest.raises(NotFound, match="`whenthen actions dead` lists them"):
        await prefixes(dead).dead_letter("e7f447132.2")


@pytest.mark.anyio
async def test_without_any_run_nothing_is_found() -> None:
    with pytest.raises(NotFound, match="no flow run 'e7f447132'"):
        await prefixes(Server([])).run("e7f447132")


@pytest.mark.anyio
async def test_more_ids_than_are_looked_through_need_the_whole_one() -> None:
    server = Server([], kept=MAX_IDS + 1)
    with pytest.raises(InvalidInput, match=r"200001 ids are kept, .* give the whole id"):
        await prefixes(server).run("e7f447132")
    assert [body for _, body in server.asked] == [None]


@pytest.mark.anyio
async def test_an_error_of_the_server_is_an_unavailable_bus() -> None:
    class Refusing:
        async def api(self, subject: str, body: Any = None) -> dict[str, Any]:
            return {"error": {"code": 503, "description": "no leader"}}

    with pytest.raises(BusUnavailable, match="no leader"):
        await prefixes(Refusing()).run("e7f447132")
