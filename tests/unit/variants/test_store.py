"""Programs kept by content: one folder a code, whole or absent, with the diff to its parent."""

from __future__ import annotations

import pytest
from support.sweeps import SCRIPT

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.script.pack import packed_program
from pgolf_sweep.script.program import from_files
from pgolf_sweep.variants.code import code_id
from pgolf_sweep.variants.diff import patched
from pgolf_sweep.variants.store import (
    Variant,
    as_text,
    from_text,
    keep,
    kept,
    kept_all,
    patch_of,
    plain_files,
    variant_program,
)

NAME = "train_gpt.py"
BASE = from_files(NAME, {NAME: SCRIPT}, builtin=False)
CHANGED = SCRIPT + b"BETA = 0.9\n"


def program(script=CHANGED, **files):
    return from_files(NAME, {NAME: script, **files}, builtin=False)


def draft(**values):
    return Variant(by="ada", **values)


@pytest.fixture
def paths(tmp_path):
    return StudyPaths(tmp_path / "study")


def test_comments_and_formatting_make_no_other_code():
    same = b"# why\nimport os\n\n\nWIDTH = int( os.environ.get('MODEL_DIM', 64) )\n"
    one = code_id({NAME: b'import os\nWIDTH = int(os.environ.get("MODEL_DIM", 64))'}, NAME)
    assert code_id({NAME: same}, NAME) == one
    assert code_id({NAME: same.replace(b"64", b"65")}, NAME) != one
    assert code_id({NAME: same, "table.txt": b"# a"}, NAME) != one
    assert code_id({NAME: b"def f(:"}, NAME) != code_id({NAME: b"def f(: "}, NAME)


def test_a_program_is_kept_with_its_diff_and_read_back(paths):
    made = keep(
        paths, draft(idea="momentum", parent_trial=3), program(**{"more.py": b"X = 1\n"}), BASE
    )
    assert kept(paths, made.id) == made == kept_all(paths)[made.id]
    assert (made.idea, made.parent_trial, made.files) == ("momentum", 3, ("more.py", NAME))
    again = variant_program(paths, made.id)
    assert again.files == {NAME: CHANGED, "more.py": b"X = 1\n"}
    assert again.sha256 == made.sha256
    assert patched(BASE.files, patch_of(paths, made.id).encode(), where="x") == again.files


def test_the_same_code_is_kept_once_as_it_came_first(paths):
    first = keep(paths, draft(idea="first"), program(), BASE)
    second = keep(paths, draft(idea="second", by="bob"), program(CHANGED + b"# same\n"), BASE)
    assert second == first
    assert variant_program(paths, first.id).files == {NAME: CHANGED}
    assert len(list(paths.variants.iterdir())) == 1


def test_a_folder_written_half_is_never_read_and_kept_anew(paths):
    made = keep(paths, draft(), program(), BASE)
    description = paths.variants / made.id / "variant.json"
    text = description.read_text()
    for damage in ("", text[: len(text) // 2], text.replace(NAME, "../../x"), "[]"):
        description.write_text(damage)
        with pytest.raises(InputError, match="damaged"):
            kept(paths, made.id)
        assert kept_all(paths) == {}
        assert keep(paths, draft(), program(), BASE) == made
    (paths.variants / made.id / "files" / NAME).write_bytes(SCRIPT)
    with pytest.raises(InputError, match="were changed"):
        variant_program(paths, made.id)
    (paths.variants / ".new-dead").mkdir()  # of a proposer that was killed
    assert list(kept_all(paths)) == [made.id]
    for name in ("../program", "absent", ""):
        with pytest.raises(InputError, match="no variant"):
            kept(paths, name)


def test_a_packed_program_keeps_its_readable_form(paths):
    text = "".join(f"VALUE_{n} = {n}  # the {n}th value\n" for n in range(200)).encode()
    packed = packed_program(program(text))
    made = keep(paths, draft(), packed, BASE)
    assert made.id == code_id({NAME: text}, NAME)
    again = variant_program(paths, made.id)
    assert again.files == packed.files
    assert plain_files(again) == {NAME: text}
    assert "+VALUE_7 = 7" in patch_of(paths, made.id)


def test_a_variant_travels_as_text_and_only_as_itself(paths, tmp_path):
    made = keep(paths, draft(idea="momentum"), program(**{"sub/more.py": b"X = 1\n"}), BASE)
    other = StudyPaths(tmp_path / "other")
    text = as_text(paths, made.id)
    from_text(other, made.id, text)
    assert kept(other, made.id) == made
    assert patch_of(other, made.id) == patch_of(paths, made.id)
    for odd in ("", "x", text[:50]):
        with pytest.raises(InputError, match="no readable variant"):
            from_text(StudyPaths(tmp_path / "third"), made.id, odd)
    assert kept_all(StudyPaths(tmp_path / "third")) == {}
