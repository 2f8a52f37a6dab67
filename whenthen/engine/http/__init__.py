"""The HTTP face of a server: events and webhooks in, lists and commands for the command line, probes and metrics."""

from whenthen.engine.http.app import HttpApp, create_app
from whenthen.engine.http.ports import Ack, Api, HookRequest, HookResult, Page

__all__ = ["Ack", "Api", "HookRequest", "HookResult", "HttpApp", "Page", "create_app"]
