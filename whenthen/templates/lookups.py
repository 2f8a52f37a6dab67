"""Renders templates that consist of literal text and look-ups only, such as `order.{{ body.number }}`, without Jinja.

Called by `templates.text`, for speed: most templates of rules are of this kind, and Jinja takes ten times as long to set up
a rendering. Only cases that succeed are handled here; all others, errors included, are left to Jinja, which defines the
meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import nodes

from whenthen.schemas.errors import RenderError
from whenthen.templates.budget import MAX_CHARS, Budget
from whenthen.templates.scalar_text import scalar_text

__all__ = ["Piece", "join_pieces", "pieces_of", "steps_of"]

#: literal text, or the steps of a look-up from the root of the context
Piece = str | tuple[str, ...]

#: types, exactly, whose values have a text
_SCALARS = frozenset((int, float, bool))
#: a name of Jinja's own, which no variable can have
_SELF = "self"


def pieces_of(template: nodes.Template, taken: Mapping[str, Any]) -> tuple[Piece, ...] | None:
    """The literals and look-ups of a parsed template; None when it has other nodes, or a look-up that starts with a name in
    `taken`, which Jinja would resolve although the context lacks it."""
    pieces: list[Piece] = []
    for output in template.body:
        if not isinstance(output, nodes.Output):
            return None
        for node in output.nodes:
            piece = node.data if isinstance(node, nodes.TemplateData) else steps_of(node)
            if piece is None or (piece[0] in taken or piece[0] == _SELF if isinstance(piece, tuple) else False):
                return None
            pieces.append(piece)
    return tuple(pieces)


def steps_of(node: nodes.Node) -> tuple[str, ...] | None:
    """The steps of a look-up, `body.number` or `body["number"]`; None for any other expression."""
    steps: list[str] = []
    while not isinstance(node, nodes.Name):
        if isinstance(node, nodes.Getattr):
            steps.append(node.attr)
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and type(node.arg.value) is str:
            steps.append(node.arg.value)
        else:
            return None
        node = node.node
    return (node.name, *reversed(steps))


def join_pieces(pieces: tuple[Piece, ...], context: Mapping[str, Any], budget: Budget) -> str | None:
    """The text, charged as Jinja's output is; None, without a charge, when Jinja must render it or report that it is too
    long or can not be encoded."""
    texts: list[str] = []
    written = 0
    for piece in pieces:
        if type(piece) is str:
            texts.append(piece)
            continue
        node: Any = context
        for step in piece:
            if type(node) is not dict or step not in node:
                return None
            node = node[step]
        if type(node) is str:
            written += len(node)
            texts.append(node)
        elif type(node) in _SCALARS:
            try:
                texts.append(scalar_text(node))
            except (ValueError, RenderError):  # a whole number of thousands of digits; no number of JSON's
                return None
        else:
            return None
    text = "".join(texts)
    if written > budget.written or len(text) > MAX_CHARS or not (text.isascii() or is_unicode(text)):
        return None
    budget.written -= written
    return text


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded as UTF-8: it has no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
