"""Plots as small SVGs, drawn by hand: bars and lines, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, LABEL, RIGHT, ROW = 760, 190, 70, 24
OURS, FLOOR, PEER = "#d9480f", "#868e96", "#4c6ef5"
COLOURS = {"ours": OURS, "floor": FLOOR, "peer": PEER}
STYLE = "font-family='system-ui,sans-serif' font-size='13' fill='#868e96'"


def _page(title: str, height: int, parts: Sequence[str]) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' role='img' {STYLE}>"
    name = escape(title)
    return "\n".join(
        [head, f"<title>{name}</title>", f"<text x='0' y='16' font-weight='600'>{name}</text>", *parts, "</svg>\n"]
    )


def bars(title: str, rows: Sequence[tuple[str, float, str]], form: str = "{:,.2f}", line: float | None = None) -> str:
    """Horizontal bars.

    Args:
        rows: Label, value, kind (``ours``, ``floor`` or ``peer``, which gives the colour).
        form: How a value is written.
        line: A value to draw a rule at.
    """
    most = max([value for _, value, _ in rows] + ([line] if line else []), default=0.0) or 1.0
    scale = (WIDTH - LABEL - RIGHT) / most
    parts = []
    for number, (label, value, kind) in enumerate(rows):
        y = 30 + number * ROW
        parts += [
            f"<text x='{LABEL - 8}' y='{y + 13}' text-anchor='end'>{escape(label)}</text>",
            f"<rect x='{LABEL}' y='{y}' width='{max(1.0, value * scale):.1f}' height='{ROW - 7}' fill='{COLOURS[kind]}'/>",
            f"<text x='{LABEL + value * scale + 6:.1f}' y='{y + 13}'>{escape(form.format(value))}</text>",
        ]
    bottom = 30 + len(rows) * ROW
    if line:
        x = LABEL + line * scale
        parts.append(f"<line x1='{x:.1f}' y1='26' x2='{x:.1f}' y2='{bottom}' stroke='{FLOOR}' stroke-dasharray='4 3'/>")
    return _page(title, bottom + 6, parts)


def lines(title: str, series: Sequence[tuple[str, Sequence[float], str]], across: str, line: float | None = None) -> str:
    """Lines over 0, 1, 2, …

    Args:
        series: Label, values, kind.
        across: What the horizontal axis counts.
        line: A value to draw a rule at.
    """
    left, top, height = 50, 34, 200
    most = max([value for _, values, _ in series for value in values] + ([line] if line else []), default=0.0) * 1.1 or 1.0
    longest = max((len(values) for _, values, _ in series), default=2)
    step, scale = (WIDTH - left - RIGHT) / max(1, longest - 1), height / most
    parts = [
        f"<line x1='{left}' y1='{top + height}' x2='{WIDTH - RIGHT}' y2='{top + height}' stroke='{FLOOR}'/>",
        f"<text x='{WIDTH - RIGHT}' y='{top + height + 18}' text-anchor='end'>{escape(across)}: 0 to {longest - 1}</text>",
        f"<text x='{left - 8}' y='{top + height}' text-anchor='end'>0</text>",
    ]
    if line:
        y = top + height - line * scale
        parts += [
            f"<line x1='{left}' y1='{y:.1f}' x2='{WIDTH - RIGHT}' y2='{y:.1f}' stroke='{FLOOR}' stroke-dasharray='4 3'/>",
            f"<text x='{left - 8}' y='{y + 4:.1f}' text-anchor='end'>{line:,g}</text>",
        ]
    for label, values, kind in series:
        points = " ".join(
            f"{left + number * step:.1f},{top + height - value * scale:.1f}" for number, value in enumerate(values)
        )
        parts.append(f"<polyline points='{points}' fill='none' stroke='{COLOURS[kind]}' stroke-width='1.5'/>")
        if values:
            end = top + height - values[-1] * scale
            parts.append(f"<text x='{left + (len(values) - 1) * step + 4:.1f}' y='{end + 4:.1f}'>{escape(label)}</text>")
    return _page(title, top + height + 26, parts)
