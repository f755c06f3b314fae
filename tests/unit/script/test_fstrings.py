"""Sources of newer Pythons become readable and mean the same."""

from __future__ import annotations

import ast

import pytest

from pgolf_sweep.script.fstrings import readable


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ('f"{h["x"]} of {", ".join(h)}"', "1 of x, y"),
        ("f'{h['x']:>{w['n']}}'", "  1"),
        ('f"it\'s {h["x"]}"', "it's 1"),
        ('f"{h["x"]}" + "#" + f"{{{h["y"]}}}"', "1#{2}"),
        ('f"{f"{h["x"]}"}!"', "1!"),
        (r"f'{'\n'.join(h)}'", "x\ny"),
        (r"f'{f'{'\u00fc'}'}'", "ü"),
        (r"f'{b'\x31'.decode()}'", "1"),
        ('f"{\nh["x"]\n}"', "1"),
    ],
)
def test_nested_quotes_of_one_kind_are_readable(source: str, value: str) -> None:
    names = {"h": {"x": 1, "y": 2}, "w": {"n": 3}}
    assert eval(compile(ast.parse(readable(source), mode="eval"), "", "eval"), names) == value  # noqa: S307


@pytest.mark.parametrize(
    "source",
    ["x = 'a' # f\"{\"\n", "f'{x!r:>10}'", "'''\nf\"{h[\"x\"]}\"\n'''", "rf'\\d{x}' b'#'", "'\\''"],
)
def test_what_was_readable_stays_as_it_is(source: str) -> None:
    assert readable(source) == source
