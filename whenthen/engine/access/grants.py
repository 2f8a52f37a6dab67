"""What was found of who asks: the token, its scopes, and the session that it came by. Made by `engine.access.access_control`."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime

from whenthen.engine.access.access_records import AccessScope

__all__ = ["EVERYTHING", "Grant", "NewSession"]

EVERYTHING = frozenset({AccessScope.ADMIN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What whoever asks may do."""

    name: str  #: of the token; empty where no token is needed
    owner: str  #: under which sessions of the token are kept; empty where no token is needed
    scopes: frozenset[AccessScope]
    expires: datetime | None = None  #: of the token, or of the session where that is sooner
    session: str = ""  #: the digest of the session that it came by
    forgery_token: str = ""  #: of the session: what its changing requests must bring

    def allows(self, scope: AccessScope) -> bool:
        return scope in self.scopes or AccessScope.ADMIN in self.scopes

    def proves(self, offered: str) -> bool:
        """Whether a changing request of a session brings what other sites can not know."""
        return hmac.compare_digest(offered.encode(), self.forgery_token.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSession:
    """A session that has just begun. `cookie` is shown this once."""

    cookie: str
    grant: Grant
