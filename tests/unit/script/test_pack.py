from __future__ import annotations

import bz2
import json
import lzma
import os
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.script import packs
from pgolf_sweep.script.bundle import bundle
from pgolf_sweep.script.dense import dense_script, is_dense
from pgolf_sweep.script.knobs.knobs import read_knobs
from pgolf_sweep.script.pack import Packed, as_counted, pack, packed_program
from pgolf_sweep.script.program import from_files, load_program
from pgolf_sweep.script.unpack import unpack

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = '''\
"""A script with a docstring that is long enough for packing to pay: {filler}"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Settings:
    """What the environment says."""

    layers: int = int(os.environ.get("NUM_LAYERS", 9))
    rate: float = float(os.environ.get("MATRIX_LR", "0.04"))


def report(settings: Settings, multiplier: int = 1) -> str:
    """A line of a log."""
    # Comments are not counted once they are gone.
    long_name_of_a_local_variable = settings.layers * multiplier
    another_long_name_of_a_local = settings.rate * multiplier
    return f"{long_name_of_a_local_variable} {another_long_name_of_a_local}"


def main() -> None:
    counted = len(Path(__file__).read_text(encoding="utf-8").encode())
    print(report(Settings(), multiplier=2), __name__, counted, len(sys.argv))


if __name__ == "__main__":
    main()
'''.replace("{filler}", "words, and words about words, " * 20)


def run(path: Path, script: bytes, **env: str) -> list[str]:
    path.write_bytes(script)
    done = subprocess.run(
        [sys.executable, str(path)], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_packed_script_does_the_same_and_counts_its_own_bytes(tmp_path: Path) -> None:
    packed = pack(SCRIPT.encode())
    for env in ({}, {"NUM_LAYERS": "11", "MATRIX_LR": "0.5"}):
        *plain, plain_bytes, _ = run(tmp_path / "a.py", SCRIPT.encode(), **env)
        *same, packed_bytes, _ = run(tmp_path / "b.py", packed.script, **env)
        assert same == plain
        assert int(packed_bytes) == len(packed.script)
        assert int(plain_bytes) == packed.before_bytes == len(SCRIPT.encode())
    assert packed.freed_bytes == len(SCRIPT.encode()) - len(packed.script) > 500
    assert f"{packed.before_bytes:,} -> {len(packed.script):,} bytes" in str(packed)


def test_our_trainer_shrinks_to_a_third_and_keeps_its_knobs() -> None:
    source = bundle()
    packed = pack(source)
    assert len(packed.script) < len(source) / 3
    before, after = read_knobs(source.decode()), read_knobs(packed.script.decode())
    assert {k: (v.kind, v.default) for k, v in before.items()} == {
        k: (v.kind, v.default) for k, v in after.items()
    }
    assert packed.script.isascii()
    assert packed.script == pack(source).script


def test_packing_twice_gains_nothing_more() -> None:
    once = pack(SCRIPT.encode())
    again = pack(once.script)
    assert len(again.script) <= len(once.script)
    assert "def report" in unpack(again.script.decode())


def test_script_that_packing_would_lengthen_stays_as_it_is() -> None:
    packed = pack(b"print(1)\n")
    assert (packed.script, packed.codec, packed.freed_bytes) == (b"print(1)\n", "none", 0)
    assert pack(b"").script == b""


def test_source_stays_readable_for_compilers_that_ask_for_it(tmp_path: Path) -> None:
    script = SCRIPT.replace(
        "if __name__",
        "import inspect\nsource = inspect.getsource(report)\nprint(len(source) > 50)\nif __name__",
    )
    packed = pack(script.encode())
    assert packed.codec != "none"
    assert run(tmp_path / "a.py", packed.script)[0] == "True"


def test_annotations_that_are_read_at_run_time_stay(tmp_path: Path) -> None:
    script = SCRIPT.replace(
        "if __name__", "print(json_of(report.__annotations__))\nif __name__"
    ).replace("import os\n", "import os\nfrom json import dumps as json_of\n", 1)
    names = json.loads("".join(run(tmp_path / "a.py", pack(script.encode()).script)[:6]))
    assert set(names) == {"settings", "multiplier", "return"}


def test_what_is_no_python_is_the_users_mistake() -> None:
    with pytest.raises(InputError, match=r"train\.py is not valid Python"):
        pack(b"def broken(:\n", name="train.py")
    with pytest.raises(InputError, match="UTF-8"):
        pack(b"# \xff\xfe\n")


def test_packed_program_has_the_same_knobs_and_fewer_counted_bytes() -> None:
    program = from_files("train.py", {"train.py": SCRIPT.encode(), "data.txt": b"x"}, builtin=False)
    packed = packed_program(program)
    assert packed.knobs == program.knobs
    assert packed.code_bytes < program.code_bytes
    assert packed.files["data.txt"] == b"x"


def test_our_trainer_alone_is_packed_unless_the_sweep_file_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(SCRIPT)
    ours, theirs = (load_program(name, base=tmp_path) for name in ("trainer", "theirs.py"))
    counted = as_counted(ours)
    assert counted.code_bytes <= 20_000 < ours.code_bytes
    assert counted.plain == ours.files["train_gpt.py"]
    assert counted.knobs == ours.knobs
    assert as_counted(theirs) == theirs
    assert as_counted(ours, wanted=False) == ours
    assert as_counted(theirs, wanted=True).code_bytes < theirs.code_bytes


@pytest.mark.parametrize("data", [b"print(1)", b"", bytes(range(256)) * 3, b"\0\0\1"])
@pytest.mark.parametrize("codec", ["zlib", "lzma", "bz2"])
def test_a_dense_script_runs_and_is_read_as_what_it_holds(codec, data, capsys) -> None:
    text = f"print({data!r})"
    compress = {"zlib": zlib.compress, "lzma": lzma.compress, "bz2": bz2.compress}[codec]
    script = dense_script(codec, compress(text.encode()))
    assert script.isascii()
    assert len(script.splitlines()) == len(script.decode().splitlines()) == 4
    exec(compile(script, "dense", "exec"), {})  # noqa: S102 - what is tested
    assert capsys.readouterr().out == f"{data!r}\n"
    assert unpack(script.decode()) == text
    assert is_dense(script)
    assert not is_dense(script + b"#")
    assert not is_dense(text.encode())


def test_our_trainer_packs_shorter_than_others_and_again_the_same() -> None:
    ours = pack(bundle(), ours=True).script
    assert len(ours) < 0.95 * len(pack(bundle()).script)
    assert read_knobs(ours.decode()).keys() == read_knobs(bundle().decode()).keys()


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pack.cache_clear()
    return tmp_path / "pgolf-sweep" / "packed"


def repack(script: str) -> Packed:
    """As the next command does."""
    pack.cache_clear()
    return pack(script.encode())


def test_next_command_takes_what_packing_made_and_packs_nothing(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = repack(SCRIPT)
    [file] = caches.iterdir()
    assert file.stat().st_mode & 0o077 == 0
    monkeypatch.setattr("pgolf_sweep.script.pack._packed", None)
    assert repack(SCRIPT) == made


@pytest.mark.parametrize("spoil", [b"", b"nonsense", None])
def test_spoilt_cache_is_packed_again_and_mended(caches: Path, spoil: bytes | None) -> None:
    made = repack(SCRIPT)
    [file] = caches.iterdir()
    kept = file.read_bytes()
    file.write_bytes(kept[:-9] if spoil is None else spoil)
    assert repack(SCRIPT) == made
    assert file.read_bytes() == kept


def test_cache_that_cannot_be_written_costs_nothing_but_time(caches: Path) -> None:
    caches.parent.parent.mkdir(exist_ok=True)
    caches.parent.write_text("a file where the folder should be")
    assert repack(SCRIPT) == repack(SCRIPT)


def test_folder_in_the_place_of_a_kept_script_costs_nothing_but_time(caches: Path) -> None:
    made = repack(SCRIPT)
    [file] = caches.iterdir()
    file.unlink()
    (file / "inside").mkdir(parents=True)
    assert repack(SCRIPT) == made


def test_cache_keeps_the_newest(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "MOST_KEPT", 2)
    for number in range(4):
        newest = repack(SCRIPT.replace("0.04", f"0.0{number}"))
        for age, file in enumerate(sorted(caches.iterdir(), key=lambda file: file.stat().st_mtime)):
            os.utime(file, (age, age))
    assert len(list(caches.iterdir())) == 2
    monkeypatch.setattr("pgolf_sweep.script.pack._packed", None)
    assert repack(SCRIPT.replace("0.04", "0.03")) == newest
