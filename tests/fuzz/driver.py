"""Runs one target under atheris: `python -m fuzz.driver TARGET [options of libFuzzer] [folders]`.

`fuzz.__main__` starts it in a process of its own. With files in place of folders it runs just those, which is how a finding is
looked at again.
"""

from __future__ import annotations

import importlib
import logging
import sys

import atheris

__all__ = ["main"]


def main() -> None:
    """Instrument our code as it is imported, then fuzz until libFuzzer ends the process."""
    name, arguments = sys.argv[1], sys.argv[2:]
    with atheris.instrument_imports(include=["whenthen"]):
        target = importlib.import_module("fuzz.targets").TARGETS[name]
    logging.getLogger("whenthen").setLevel(logging.CRITICAL)  # thousands of refusals a second
    atheris.Setup([sys.argv[0], *arguments], target)
    atheris.Fuzz()


main()
