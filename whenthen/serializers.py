"""Prefect's `serializers`: in which form results are kept."""

from whenthen.flows.caching.result_forms import CompressedSerializer, JSONSerializer, PickleSerializer, Serializer

__all__ = ["CompressedSerializer", "JSONSerializer", "PickleSerializer", "Serializer"]
