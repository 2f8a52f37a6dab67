"""What do clouds put around an event, and how do their object stores tell of theirs? Envelopes, and the buckets of Google and Azure."""

from __future__ import annotations

from whenthen.sources.cloud.cloud_buckets import translate_azure_blob, translate_gcs
from whenthen.sources.cloud.envelopes import unwrap

__all__ = ["translate_azure_blob", "translate_gcs", "unwrap"]
