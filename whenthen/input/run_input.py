"""Prefect's `input.run_input`."""

from whenthen.flows.services.run_inputs import (
    GetInputHandler,
    RunInput,
    asend_input,
    receive_input,
    send_input,
)

__all__ = [
    "GetInputHandler",
    "RunInput",
    "asend_input",
    "receive_input",
    "send_input",
]
