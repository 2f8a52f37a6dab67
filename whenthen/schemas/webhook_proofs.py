"""Proofs of requests that no signature by a shared secret says: certificates, tokens, Twilio's forms, headers of a proxy. Checks: `whenthen.sources`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal, Union
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from whenthen.schemas.base import Model, OneOrMany, SecretRef, as_list
from whenthen.schemas.times import Duration

__all__ = ["JwtVerification", "ProxyVerification", "SnsVerification", "TwilioVerification"]

_Text = Annotated[str, Field(min_length=1, max_length=1024)]
Texts = Annotated[list[_Text], BeforeValidator(as_list), OneOrMany(), Field(min_length=1, max_length=50)]
_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]{1,256}", re.ASCII)


def _check_topic(text: str) -> str:
    if not _TOPIC.fullmatch(text):
        raise ValueError(
            f"{text[:80]!r} is no topic; write it whole, such as arn:aws:sns:eu-west-1:123456789012:alarms"
        )
    return text


def _check_https(text: str) -> str:
    try:
        parts = urlsplit(text)
        fits = parts.scheme == "https" and bool(parts.hostname) and not parts.username and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{text[:80]!r} is no address that begins with https://")
    return text


class SnsVerification(Model):
    """A message of Amazon SNS, signed with the key of the certificate that it names at Amazon's host."""

    type: Literal["sns"]
    topics: Annotated[
        list[Annotated[str, AfterValidator(_check_topic)]],
        BeforeValidator(as_list),
        OneOrMany(),
        Field(min_length=1, max_length=100),
    ]
    """ARNs whose messages are taken. Everybody's topics are signed by Amazon, so a signature alone proves nothing."""
    confirm: bool = False
    """Whether subscriptions of these topics are confirmed; otherwise the log has the address to open."""
    max_age: Duration = timedelta(hours=1)
    """How old a message may be; SNS repeats one for up to an hour in its own policy."""


class JwtVerification(Model):
    """A token (JWT) that a key of a public set signed, such as Google's or Entra's."""

    type: Literal["jwt"]
    keys: Annotated[str, AfterValidator(_check_https)] = Field(max_length=1024)
    """Where the set of keys (JWKS) is."""
    issuer: Texts
    audience: Texts
    claims: dict[_Text, Texts] = Field(default_factory=dict, max_length=20)
    """Further claims, each with the values that are accepted, such as `{email: robot@project.iam.gserviceaccount.com}`."""
    header: str = Field(default="Authorization", min_length=1, max_length=256)
    leeway: Duration = timedelta(minutes=1)
    """How far the clocks may be apart."""


class TwilioVerification(Model):
    """Twilio's signature of the address and the form's fields, or of a JSON body by its digest in the address."""

    type: Literal["twilio"]
    token: Annotated[list[SecretRef], BeforeValidator(as_list), OneOrMany(), Field(min_length=1, max_length=10)]
    """The account's auth token."""
    url: Annotated[str, AfterValidator(_check_https)] = Field(max_length=2048)
    """The address as Twilio calls it. A query that it calls with is the request's own."""

    @model_validator(mode="after")
    def _bare(self) -> TwilioVerification:
        if "?" in self.url or "#" in self.url:
            raise ValueError("url: write it without a query; what a request is called with counts")
        return self


class ProxyVerification(Model):
    """Headers that a trusted proxy sets, such as the subject of a client certificate that it has checked."""

    type: Literal["proxy"]
    headers: dict[_Text, Texts] = Field(min_length=1, max_length=10)
    """Each must be there once with an accepted value, and the request must come from one of the setting `trusted_proxies`."""


Proof = Union[SnsVerification, JwtVerification, TwilioVerification, ProxyVerification]
