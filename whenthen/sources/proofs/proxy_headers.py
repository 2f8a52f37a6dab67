"""Did a trusted proxy say who the sender is? After mutual TLS a proxy sets a header that no client can reach past it. Pure."""

from __future__ import annotations

import hmac

from whenthen.schemas.errors import Unproven
from whenthen.schemas.webhooks import ProxyVerification
from whenthen.sources.hmac_signatures import credential
from whenthen.sources.requests import Request

__all__ = ["check_proxy"]


def check_proxy(request: Request, how: ProxyVerification) -> None:
    """Return if the request comes from a trusted proxy and each header has an accepted value. Raises `Unproven`."""
    if not request.from_proxy:
        raise Unproven(
            "proof_wrong",
            "it did not come from a proxy of the setting `trusted_proxies`, whose headers alone are believed",
        )
    for header, values in how.headers.items():
        given = credential(request, header).encode("utf-8", "replace")
        accepted = False
        for value in values:
            accepted |= hmac.compare_digest(given, value.encode())
        if not accepted:
            raise Unproven("proof_wrong", f"header {header}: the value is not accepted")
