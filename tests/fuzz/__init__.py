"""Fuzzing: targets that take bytes, the stored corpus of each, and what runs them.

`make fuzz` feeds each target from coverage guidance for a bounded time, and the HTTP API from its OpenAPI document.
`make test` runs every target once over the stored corpus. CONTRIBUTING.md, "Fuzzing", says how to keep what was found.
"""
