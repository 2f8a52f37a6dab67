"""Who did what, when, and what was refused? Acts on record in the stream `AUDIT`: bounded, without keeping anybody waiting."""

from __future__ import annotations

from whenthen.engine.audit.audit_log import CALLER, AuditLog

__all__ = ["CALLER", "AuditLog"]
