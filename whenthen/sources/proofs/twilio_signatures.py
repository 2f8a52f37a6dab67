"""Does Twilio's signature hold? Base64 of HMAC-SHA1 over the address and the sorted fields of the form. Pure.

https://www.twilio.com/docs/usage/security: a JSON body is covered by `bodySHA256` in the query.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import parse_qsl

from whenthen.schemas.errors import Unproven
from whenthen.schemas.webhooks import TwilioVerification
from whenthen.sources.hmac_signatures import credential
from whenthen.sources.requests import MAX_FIELDS, Request

__all__ = ["check_twilio"]

HEADER = "X-Twilio-Signature"
_FORM = "application/x-www-form-urlencoded"


def check_twilio(request: Request, how: TwilioVerification, keys: list[bytes]) -> None:
    """Return if the signature covers the address and all of the body. Raises `Unproven`."""
    given = credential(request, HEADER).encode("utf-8", "replace")
    text = how.url + (f"?{request.raw_query}" if request.raw_query else "")
    digest = request.query.get("bodySHA256")
    if digest is not None:
        found = hashlib.sha256(request.body).hexdigest()
        if not hmac.compare_digest(found.encode(), digest.lower().encode("utf-8", "replace")):
            raise Unproven("proof_wrong", "query bodySHA256: it is not the digest of the body")
    elif request.media_type == _FORM:
        text += _fields(request.body)
    elif request.body:
        # nothing that is signed would cover it
        raise Unproven("proof_missing", "a body that is no form needs bodySHA256 in the query", status=401)
    accepted = False
    for key in keys:
        made = base64.b64encode(hmac.digest(key, text.encode("utf-8", "replace"), "sha1"))
        accepted |= hmac.compare_digest(made, given)
    if not accepted:
        raise Unproven(
            "proof_wrong",
            f"header {HEADER}: the signature does not match; compare `url` with the address that Twilio calls, and the token",
        )


def _fields(body: bytes) -> str:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Unproven("proof_malformed", "the form can not be read", status=401) from None
    by_name: dict[str, set[str]] = {}
    for name, value in pairs:
        by_name.setdefault(name, set()).add(value)
    return "".join(name + value for name in sorted(by_name) for value in sorted(by_name[name]))
