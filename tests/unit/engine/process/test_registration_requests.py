"""What a script sends to register deployments, and what is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from whenthen.engine.http import request_models as requests
from whenthen.engine.process.commands.registration_commands import RegistrationCommands
from whenthen.runs.memory_stores import memory_stores
from whenthen.schemas.errors import InvalidInput

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("triggers", "said", "field"),
    [
        (5, "wanted a list of triggers, found '5'", "deployments[0].rule.triggers"),
        (0, "wanted a list of triggers, found '0'", "deployments[0].rule.triggers"),
        ("x" * 1000, "wanted a list of triggers, found 'xxx", "deployments[0].rule.triggers"),
        ({"trigger": {"expect": "x"}}, "wanted a list of triggers", "deployments[0].rule.triggers"),
        ([{"trigger": {"expect": "x"}}, None], "trigger 2 of deployment 'd': wanted a mapping, found 'None'", "triggers[1]"),
        ([[1]], "trigger 1 of deployment 'd': wanted a mapping", "triggers[0]"),
    ],
)  # fmt: skip
async def test_triggers_that_are_none_are_refused_with_their_place(triggers: Any, said: str, field: str) -> None:
    commands = RegistrationCommands(
        cast("Any", None),  # it is refused before the rules in force are looked at
        memory_stores(),
        lambda: datetime.now(UTC),
        check_allowed=lambda: None,
        lost_after=timedelta(minutes=1),
    )
    request = requests.read_registration(
        {"script": "load.py", "deployments": [{"rule": {"name": "d", "command": "true", "triggers": triggers}}]}
    )
    with pytest.raises(InvalidInput) as refused:
        await commands.register_deployments(request)
    assert said in str(refused.value)
    assert field in str(refused.value)
    assert len(str(refused.value)) < 300
