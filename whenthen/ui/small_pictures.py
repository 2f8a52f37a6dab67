"""Small pictures in lines of text, as SVG without styles of its own: classes of the stylesheet colour them."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

__all__ = ["bars", "fill"]

_HEIGHT = 28
_STEP = 10
_MOST_DOTS = 12


def bars(counts: Sequence[int], titles: Sequence[str], *, label: str, tone: str = "calm") -> Markup:
    """A bar for each of `counts`, the largest as high as the picture; `titles` say what each is."""
    most = max(counts, default=0) or 1
    width = max(len(counts), 1) * _STEP
    parts = []
    for number, (count, title) in enumerate(zip(counts, titles, strict=True)):
        height = max(2.0, count / most * (_HEIGHT - 1)) if count else 1.0
        parts.append(
            Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
                "bar" if count else "bar empty", number * _STEP + 1, round(_HEIGHT - height, 1), _STEP - 2,
                round(height, 1), title,
            )
        )  # fmt: skip
    return Markup(
        '<svg class="bars {}" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(tone, width, _HEIGHT, label, Markup("").join(parts))


def fill(count: int, needed: int, *, tone: str = "calm") -> Markup:
    """How far a window is: a dot for each event that is needed when these are few, otherwise a bar. The numbers stand beside it."""
    label = f"{count} of {needed}"
    if 0 < needed <= _MOST_DOTS:
        dots = Markup("").join(
            Markup('<circle class="{}" cx="{}" cy="6" r="4"/>').format(
                "full" if number < count else "open", number * 12 + 6
            )
            for number in range(needed)
        )
        return Markup(
            '<svg class="fill {}" viewBox="0 0 {} 12" width="{}" height="12" role="img" aria-label="{}">{}</svg>'
        ).format(tone, needed * 12, needed * 12, label, dots)
    share = min(1.0, count / needed) if needed > 0 else 0.0
    return Markup(
        '<svg class="fill {}" viewBox="0 0 100 12" width="100" height="12" role="img" aria-label="{}">'
        '<rect class="open" x="0.5" y="2.5" width="99" height="7" rx="3.5"/>'
        '<rect class="full" x="0.5" y="2.5" width="{}" height="7" rx="3.5"/></svg>'
    ).format(tone, label, round(99 * share, 1))
