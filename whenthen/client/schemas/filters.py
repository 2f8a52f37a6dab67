"""Prefect's `client.schemas.filters`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import client_schemas_filters as client_schemas_filters
