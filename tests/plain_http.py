"""HTTP clients for servers on loopback."""

from __future__ import annotations

from typing import Any

import httpx

__all__ = ["plain_async_client", "plain_client"]

#: without proxies; and without the authorities of TLS, which a client otherwise reads for 20 ms even where nobody shows a certificate
PLAIN: dict[str, Any] = {"trust_env": False, "verify": False}


def plain_client(**options: Any) -> httpx.Client:
    return httpx.Client(**PLAIN, **options)


def plain_async_client(**options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(**PLAIN, **options)
