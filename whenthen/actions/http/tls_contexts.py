"""TLS contexts of outgoing requests: public roots, or an action's own authorities and client certificate.

Called by `http_client` for each https request; contexts are kept by what they were made of, so that a changed file makes a
new one and an unchanged one costs a look-up. Verification of certificate and host name is never off.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections import OrderedDict
from pathlib import Path

import httpx

from whenthen.actions.http.outgoing import RequestFailed, TlsMaterial

__all__ = ["TlsContexts", "explain_tls_error"]

#: contexts that are kept; beyond it the one that was used longest ago is made anew when it is needed
KEPT = 64

#: OpenSSL's codes of verification errors (openssl-verification-options(1)), and what to do about them
REMEDIES = {
    9: "its time has not begun; check the clock of this machine",
    10: "the receiver has to renew it",
    18: "if you trust it, name it with `tls: {ca: file:/path}`",
    19: "if you trust its authority, name that with `tls: {ca: file:/path}`",
    20: "if you trust its authority, name that with `tls: {ca: file:/path}`; or the receiver leaves out intermediate ones",
    21: "if you trust its authority, name that with `tls: {ca: file:/path}`; or the receiver leaves out intermediate ones",
    62: "the host of the URL must be one of the certificate's names",
    64: "the address of the URL must be one of the certificate's names",
}
#: OpenSSL's words for alerts by which a server asks for a client certificate (or another one)
WANTS_CERTIFICATE = frozenset({"TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLSV1_ALERT_CERTIFICATE_REQUIRED"})
REFUSES_CERTIFICATE = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_UNKNOWN_CA",
    }
)
HANDSHAKE_FAILURES = frozenset({"SSLV3_ALERT_HANDSHAKE_FAILURE", "TLSV1_ALERT_HANDSHAKE_FAILURE"})


class TlsContexts:
    """Makes and keeps contexts."""

    def __init__(self) -> None:
        self._public: ssl.SSLContext | None = None
        self._own: OrderedDict[TlsMaterial, ssl.SSLContext] = OrderedDict()

    async def get(self, material: TlsMaterial | None) -> ssl.SSLContext:
        """The context for `material`; None is the public roots and no client certificate.

        Raises:
            RequestFailed: `material` is not PEM, or its key belongs to another certificate.
        """
        if material is None:
            if self._public is None:
                self._public = await asyncio.to_thread(_with_public_roots)  # it reads all the roots
            return self._public
        found = self._own.get(material)
        if found is None:
            found = await asyncio.to_thread(_make, material)
            self._own[material] = found
            if len(self._own) > KEPT:
                self._own.popitem(last=False)
        else:
            self._own.move_to_end(material)
        return found


def _with_public_roots() -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _make(material: TlsMaterial) -> ssl.SSLContext:
    if material.ca is None:
        context = _with_public_roots()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_verify_locations(cadata=material.ca)
        except (ssl.SSLError, ValueError):
            raise _unusable("tls.ca: has no certificates in it that can be read; it is PEM") from None
    if material.certificate is not None:
        # OpenSSL reads certificates and keys from files alone
        with tempfile.TemporaryDirectory(prefix="whenthen-") as folder:
            path = Path(folder) / "client.pem"
            path.touch(mode=0o600)
            path.write_text(material.certificate + "\n" + (material.key or ""), encoding="utf-8")
            try:
                context.load_cert_chain(path, password="")  # a passphrase would be asked for at the terminal
            except ssl.SSLError as error:
                if error.reason == "KEY_VALUES_MISMATCH":
                    raise _unusable("tls.key: belongs to another certificate than tls.certificate") from None
                raise _unusable(
                    "tls.certificate, tls.key: not a certificate with its key; both are PEM, the key without a passphrase"
                ) from None
    return context


def _unusable(message: str) -> RequestFailed:
    return RequestFailed(message, reason="tls", retryable=False)


def explain_tls_error(error: ssl.SSLError) -> RequestFailed:
    """What went wrong while a TLS connection was made or just after, and the remedy."""
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = REMEDIES.get(error.verify_code)
        text = error.verify_message.rstrip(".")
        return RequestFailed(f"no trusted TLS connection: {text}" + (f"; {remedy}" if remedy else ""))
    if error.reason in WANTS_CERTIFICATE:
        return RequestFailed(
            "the receiver demands a client certificate; name one with `tls: {certificate: file:/path, key: file:/path}`",
            reason="tls",
            retryable=False,
        )
    if error.reason in REFUSES_CERTIFICATE:
        return RequestFailed(
            f"the receiver does not take the client certificate ({error.reason}); check `tls` or ask for another one",
            reason="tls",
            retryable=False,
        )
    text = f"no TLS connection: {error.reason or error}"
    if error.reason in HANDSHAKE_FAILURES:
        text += "; versions or ciphers do not match, or the receiver demands a client certificate (`tls`)"
    return RequestFailed(text)
