"""Prefect's `utilities.annotations`: marks around an argument that say how it is passed."""

from whenthen.flows.definitions.annotations import Annotation as BaseAnnotation
from whenthen.flows.definitions.annotations import allow_failure, opaque, quote, unmapped

__all__ = ["BaseAnnotation", "allow_failure", "opaque", "quote", "unmapped"]
