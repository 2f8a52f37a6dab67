"""What `whenthen history list` can be asked, and what no server can be asked at all."""

from __future__ import annotations

import asyncio

import pytest
from typer.testing import CliRunner

from tests.unit.engine.http.http_fakes import FakeApi, app_over, client_of
from whenthen.cli.client import Client
from whenthen.cli.lists.filter_pairs import COUNTED, FILTERS
from whenthen.cli.main import app
from whenthen.schemas.errors import InvalidInput


@pytest.mark.takes(1.5)
def test_the_filters_are_those_of_the_route() -> None:
    async def parameters(path: str) -> set[str]:
        async with client_of(app_over(FakeApi())) as client:
            document = (await client.get("/openapi.json")).json()
        route = document["paths"][path]["get"]
        return {each["name"] for each in route["parameters"] if each["in"] == "query"}

    assert {*FILTERS, "limit", "before", "since", "until"} == asyncio.run(parameters("/api/history/{of}"))
    assert {*COUNTED, "by", "step", "since", "until"} == asyncio.run(parameters("/api/history/{of}/counts"))
    assert {*FILTERS, "of"} == asyncio.run(parameters("/api/stream"))


def test_a_filter_that_is_none_is_refused_with_the_near_ones() -> None:
    done = CliRunner().invoke(app, ["history", "list", "events", "nam=x"])
    assert done.exit_code == 2
    assert "no filter is named 'nam'; did you mean 'name'?" in " ".join(done.output.split())


def test_what_is_too_long_for_an_address_is_refused() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(InvalidInput, match="nobody can be asked for this"):
        client.get("/api/trace/" + "z" * 100_000)
