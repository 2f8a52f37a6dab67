"""What the demo sends: a push as GitHub's webhooks have it, and an upload as S3 notifications have it. Pure."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote_plus

import orjson

from whenthen.schemas.times import format_time

__all__ = ["UPLOAD_BYTES", "Delivery", "push", "upload"]

COMMIT = "9fceb02d0ae598e95dc970b74767f19372d61af8"
UPLOAD_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One request to a webhook."""

    path: str
    headers: dict[str, str]
    body: bytes
    about: str  #: for people


def push(secret: str, now: datetime) -> Delivery:
    """Ada pushes one commit to main of acme/shop. Signed as GitHub signs: HMAC-SHA256 of the raw body."""
    ada = {"login": "ada", "id": 583231, "type": "User", "site_admin": False}
    acme = {"login": "acme", "id": 9919, "type": "Organization"}
    commit = {
        "id": COMMIT,
        "message": "Round prices after tax, not before",
        "timestamp": now.isoformat(timespec="seconds"),
        "url": f"https://github.example/acme/shop/commit/{COMMIT}",
        "author": {"name": "Ada", "email": "ada@acme.example", "username": "ada"},
        "added": [],
        "removed": [],
        "modified": ["shop/prices.py"],
    }
    document: dict[str, Any] = {
        "ref": "refs/heads/main",
        "before": "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        "after": COMMIT,
        "created": False,
        "deleted": False,
        "forced": False,
        "compare": "https://github.example/acme/shop/compare/4b825dc642cb...9fceb02d0ae5",
        "commits": [commit],
        "head_commit": commit,
        "repository": {
            "id": 1296269,
            "name": "shop",
            "full_name": "acme/shop",
            "private": True,
            "visibility": "private",
            "default_branch": "main",
            "owner": acme,
        },
        "organization": acme,
        "pusher": {"name": "ada", "email": "ada@acme.example"},
        "sender": ada,
    }
    body = orjson.dumps(document)
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": str(uuid.uuid4()),
        "X-Hub-Signature-256": f"sha256={signature}",
    }
    return Delivery(path="/hooks/github", headers=headers, body=body, about="ada pushes to main of acme/shop")


def upload(token: str, now: datetime) -> Delivery:
    """A file of orders lands in the bucket `raw`; the notification is that of an S3 interface."""
    key = f"orders/{now:%Y-%m-%d} morning.csv"
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-west-3",
        "eventTime": format_time(now),
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "shop-export"},
        "requestParameters": {"sourceIPAddress": "192.0.2.7"},
        "responseElements": {"x-amz-request-id": uuid.uuid4().hex[:16].upper()},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "whenthen",
            "bucket": {"name": "raw", "arn": "arn:aws:s3:::raw", "ownerIdentity": {"principalId": "acme"}},
            "object": {
                "key": quote_plus(key, safe="/"),
                "size": UPLOAD_BYTES,
                "eTag": hashlib.md5(key.encode(), usedforsecurity=False).hexdigest(),
                "sequencer": f"{int(now.timestamp() * 1e6):016X}",
            },
        },
    }
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    return Delivery(
        path="/hooks/storage",
        headers=headers,
        body=orjson.dumps({"Records": [record]}),
        about=f"the object store tells of s3://raw/{key}",
    )
