"""Tokens, sessions and one-time addresses: what requests hold and what is answered."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field, StrictStr

from whenthen.engine.access import AccessScope
from whenthen.engine.http.models.answer_base import AnswerModel
from whenthen.engine.http.models.request_models import RequestModel, read_fields
from whenthen.schemas.times import Duration

__all__ = ["LoginAddress", "NewToken", "SessionItem", "TokenItem", "TokenRequest", "read_token_request"]


class TokenRequest(RequestModel):
    """A token that is to be made."""

    name: StrictStr = Field(max_length=1000)
    """Up to 64 letters, digits, `.`, `_` and `-`."""
    scopes: list[AccessScope] = Field(min_length=1, max_length=len(AccessScope))
    lasts: Annotated[Duration | None, Field(gt=timedelta())] = None
    """After which it expires; left out: when somebody revokes it."""


class TokenItem(AnswerModel):
    """A named token, without its value."""

    name: str
    id: str
    """Stands in the value, too."""
    scopes: list[AccessScope]
    created: str
    created_by: str
    """The token that it was made with, and from where."""
    expires: str | None
    expired: bool


class NewToken(TokenItem):
    """A token that was just made."""

    value: str
    """What is sent as `Authorization: Bearer <value>`. It is kept nowhere, and shown this once."""


class SessionItem(AnswerModel):
    """Who asks, and what they may do."""

    token: str
    """The name of the token; empty where none is needed."""
    scopes: list[AccessScope]
    expires: str | None
    """When the session or the token is over."""
    csrf_token: str | None
    """What changing requests of a session send as `X-CSRF-Token`, or forms as `csrf_token`."""


class LoginAddress(AnswerModel):
    """Where a browser logs in once."""

    path: str
    """Behind the server's address."""
    lasts_s: int
    """For how long, in seconds, if nobody used it before."""


_REMEDIES = {
    "name": "the name of the token, text",
    "scopes": f"a list of one or more of {', '.join(AccessScope)}",
    "lasts": "a duration of more than 0, such as 90d",
}


def read_token_request(data: Any) -> TokenRequest:
    """The request for a token.

    Raises:
        HttpError: 400, with the field at fault.
    """
    return read_fields(TokenRequest, data, _REMEDIES, '{"name": "ci", "scopes": ["emit"]}')
