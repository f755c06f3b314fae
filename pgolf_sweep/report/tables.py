"""Tables of the report; thousands of rows stay small, since cells carry no markup of their own."""

from __future__ import annotations

import hashlib
from html import escape
from typing import TYPE_CHECKING

from pgolf_sweep.core.record import SCORE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TABLES = """
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
td i { font-style: normal; white-space: nowrap; }
@media (max-width: 40rem) {
  /* A row becomes a card: each cell says what it is. */
  table, tbody, tr, td { display: block; } thead { display: none; }
  tr { border: 1px solid var(--line); border-radius: 6px; padding: .4rem .6rem; margin: .5rem 0; }
  td { border: 0; padding: 0; } td:empty { display: none; } td::before { color: var(--soft); }
}
"""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int) -> str:
    """A table whose first columns hold numbers; sizes that no row has are left out."""
    rows = list(rows)
    sizes = {"artifact", "headroom"} if SCORE not in heads else set()
    empty = {n for n, head in enumerate(heads) if head in sizes and not any(r[n] for r in rows)}
    kept = [place for place in range(len(heads)) if place not in empty]
    numbers -= sum(place < numbers for place in empty)
    heads = [heads[place] for place in kept]
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "\n".join(f"<tr>{_cells(heads, [row[place] for place in kept])}</tr>" for row in rows)
    name = "t" + hashlib.sha256("\0".join(heads).encode()).hexdigest()[:8]
    return (
        f'<style>{_columns(name, heads, numbers)}</style><div class="wide"><table class="{name}">'
        f"<thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _columns(name: str, heads: Sequence[str], numbers: int) -> str:
    """Style of a table's columns: numbers on the right; on a phone the head before each cell."""
    own = "".join(
        f".{name} td:nth-child({place})::before{{content:{_quoted(head)}}}"
        for place, head in enumerate(heads, start=1)
    )
    return (
        f".{name} :is(th,td):nth-child(-n+{numbers})"
        "{white-space:nowrap;font-variant-numeric:tabular-nums}"
        f"@media (min-width:40.01rem){{.{name} :is(th,td):nth-child(-n+{numbers})"
        f"{{text-align:right}}}}@media (max-width:40rem){{{own}}}"
    )


def _quoted(text: str) -> str:
    """A CSS string; a knob's name ends neither it nor the style."""
    plain = (c if c.isascii() and c.isalnum() else f"\\{ord(c):06x}" for c in f"{text} ")
    return f'"{"".join(plain)}"'


def _cells(heads: Sequence[str], row: Sequence[str]) -> str:
    return "".join(f"<td>{_cell(head, text)}</td>" for head, text in zip(heads, row, strict=True))


def _cell(head: str, text: str) -> str:
    """A cell's text; a knob and its value stay on one line."""
    if head != "knobs":
        return escape(text)
    return " ".join(f"<i>{escape(pair)}</i>" for pair in text.split(" "))
