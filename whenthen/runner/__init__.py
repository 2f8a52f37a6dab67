"""Prefect's `runner`: serving flows from a script."""

from whenthen.flows.deploying.given_deployments import (
    serve,
)
from whenthen.flows.unsupported import names_of_runner

__all__ = [
    "serve",
]

__getattr__ = names_of_runner
