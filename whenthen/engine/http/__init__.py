"""The HTTP face of a server: events and webhooks in, lists and commands for the command line, probes and metrics."""

from whenthen.engine.http.api_port import Ack, Api, HookRequest, HookResult, Page
from whenthen.engine.http.app import HttpApp, create_app

__all__ = ["Ack", "Api", "HookRequest", "HookResult", "HttpApp", "Page", "create_app"]
