"""Signatures of outgoing requests by Standard Webhooks 1.0 (standardwebhooks.com): symmetric, version `v1`. Pure."""

from __future__ import annotations

import base64
import binascii
import hmac
from datetime import datetime

from whenthen.schemas.errors import ActionError

__all__ = ["SIGNATURE_HEADERS", "signature_headers"]

SIGNATURE_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
PREFIX = "whsec_"


def signature_headers(secret: str, *, id: str, now: datetime, body: bytes, reference: str) -> dict[str, str]:
    """The three headers for `body`. `secret` is base64 after `whsec_` (the prefix may be missing).

    Raises:
        ActionError: the secret is not base64; names `reference`, never the value.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ActionError(
            f"secret: {reference} is no Standard Webhooks secret; it is `{PREFIX}` and then base64, "
            "such as the output of: echo whsec_$(openssl rand -base64 32)",
            retryable=False,
            reason="secret",
        ) from None
    timestamp = str(int(now.timestamp()))
    signed = b".".join((id.encode(), timestamp.encode(), body))
    signature = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return dict(zip(SIGNATURE_HEADERS, (id, timestamp, f"v1,{signature}"), strict=True))
