"""Patches between programs, and the merge of two of them by git."""

from __future__ import annotations

import pytest

from pgolf_sweep.core.errors import AnswerNoError, InputError
from pgolf_sweep.variants.diff import merged, patched, unified

LINES = [f"line {n}\n" for n in range(20)]
BASE = {"a.py": "".join(LINES).encode(), "b.txt": b"beta"}


def changed(at, text):
    return {**BASE, "a.py": "".join([*LINES[:at], text, *LINES[at + 1 :]]).encode()}


@pytest.mark.parametrize(
    "after",
    [
        changed(3, "three\n"),
        {**BASE, "b.txt": b"beta\n"},
        {**BASE, "b.txt": b"gamma"},
        {**BASE, "sub/new.py": b"X = 1\n"},
        {"a.py": BASE["a.py"]},
        {**BASE, "b.txt": "größer\n".encode()},
    ],
)
def test_a_patch_makes_the_changed_program_of_its_parent(after):
    assert patched(BASE, unified(BASE, after).encode(), where="x") == after
    assert unified(BASE, BASE) == ""


def test_a_patch_with_miscounted_hunks_applies():
    patch = unified(BASE, changed(3, "three\n")).replace("@@ -1,7 +1,7 @@", "@@ -1,9 +1,8 @@")
    assert "-1,9" in patch
    assert patched(BASE, patch.encode(), where="x") == changed(3, "three\n")


@pytest.mark.parametrize("patch", [b"", b"no patch\n", unified(changed(3, "x\n"), BASE).encode()])
def test_a_patch_that_does_not_apply_is_the_users_mistake(patch):
    with pytest.raises(InputError, match="patch"):
        patched(BASE, patch, where="idea.patch")


def test_a_patch_writes_nothing_outside(tmp_path):
    outside = tmp_path / "outside.py"
    patch = f"--- /dev/null\n+++ b/../../../../{outside}\n@@ -0,0 +1 @@\n+X = 1\n"
    with pytest.raises(InputError, match="does not apply"):
        patched(BASE, patch.encode(), where="x")
    assert not outside.exists()


def test_changes_of_different_lines_merge_and_of_the_same_do_not():
    one, two = changed(2, "two\n"), changed(15, "fifteen\n")
    both = merged(BASE, one, {**two, "new.py": b"X = 1\n"})
    assert both["a.py"].decode().splitlines()[2::13] == ["two", "fifteen"]
    assert both["new.py"] == b"X = 1\n"
    assert merged(BASE, one, BASE) == one
    with pytest.raises(AnswerNoError, match="same lines"):
        merged(BASE, one, changed(2, "other\n"))
    with pytest.raises(AnswerNoError, match="same lines"):
        merged(BASE, {"b.txt": b"beta"}, one)
