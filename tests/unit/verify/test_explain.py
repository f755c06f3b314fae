"""Every rule is explained, and only rules that exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.verify import check
from pgolf_sweep.verify.check import Check, CheckVerdict
from pgolf_sweep.verify.explain import RULES, explain

SOURCES = [
    path
    for path in Path(check.__file__).parent.glob("*.py")
    if path.name not in {"explain.py", "schema.py"}
]
MAKERS = {"Check", "_answer", "_clock", "_score"}


def constants(path: Path) -> set[str]:
    """Texts of a module that can be the name of a rule."""
    tree = ast.parse(path.read_text())
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and n.value in RULES}


def made(path: Path) -> set[str]:
    """Names that a module gives to a check as it makes it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in MAKERS:
            continue
        named = [keyword.value for keyword in node.keywords if keyword.arg == "rule"]
        for value in [*node.args[:1], *named]:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.add(value.value)
    return found


def test_every_rule_that_a_check_names_is_explained() -> None:
    names = set().union(*map(made, SOURCES))
    assert len(names) > 30
    assert names <= set(RULES)


def test_no_rule_is_explained_that_no_check_names() -> None:
    assert set(RULES) == set().union(*map(constants, SOURCES))


@pytest.mark.parametrize("rule", RULES)
def test_an_explanation_says_what_how_and_why(rule: str) -> None:
    told = explain(rule)
    for text in (told.asks, told.measured, told.source):
        assert text.strip() == text
        assert len(text) > 5
    assert told.asks.endswith(".")
    assert told.measured.endswith(".")


def test_a_check_of_a_rule_without_an_explanation_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="has no entry"):
        Check(rule="new_rule", verdict=CheckVerdict.PASS)


def test_an_unknown_rule_is_wrong_input_that_names_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        explain("bytes_per_tokens")
    assert caught.value.next_step == "pgolf-sweep verify --explain bytes_per_token"


def test_the_page_names_every_rule() -> None:
    page = (Path(__file__).parents[3] / "docs" / "verify.md").read_text()
    words = set(page.replace(",", " ").replace("`", " ").split())
    assert set(RULES) - {"rerun"} <= words
