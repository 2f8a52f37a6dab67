"""Does a certificate, a token, a form's signature or a proxy's header prove a request? What no shared secret over the body says.

Called by `sources.verification`. Keys that are public lie in `PublicKeys`, which the engine's edge fills. Meaning: docs/sources.md, "Other proofs".
"""

from __future__ import annotations

from whenthen.sources.proofs.json_web_tokens import check_token, lacks_key
from whenthen.sources.proofs.proxy_headers import check_proxy
from whenthen.sources.proofs.public_keys import PublicKeys, require_libraries
from whenthen.sources.proofs.sns_signatures import certificate_of, check_sns, confirmation_of
from whenthen.sources.proofs.twilio_signatures import check_twilio

__all__ = [
    "PublicKeys",
    "certificate_of",
    "check_proxy",
    "check_sns",
    "check_token",
    "check_twilio",
    "confirmation_of",
    "lacks_key",
    "require_libraries",
]
