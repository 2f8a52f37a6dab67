"""Prefect's `docker`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import docker as docker
