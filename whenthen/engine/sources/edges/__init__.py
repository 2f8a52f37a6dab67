"""How is each kind of source read? One file a kind; what needs a library of its own imports it when it is started."""

from __future__ import annotations
