"""Prefect's `runner.storage`: where a flow comes from that is not written in this program."""

from whenthen.flows.deploying.code_origins import (
    GitRepository,
    LocalStorage,
)
from whenthen.flows.unsupported import names_of_runner_storage

__all__ = [
    "GitRepository",
    "LocalStorage",
]

__getattr__ = names_of_runner_storage
