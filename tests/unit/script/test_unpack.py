import base64
import bz2
import lzma
import tracemalloc
import zlib
from pathlib import Path

import brotli
import pytest

from pgolf_sweep.script.knobs.knobs import read_knobs
from pgolf_sweep.script.unpack import MOST_BYTES, unpack

PLAIN = "import os\nMODEL_DIM = int(os.environ.get('MODEL_DIM', 512))\n" + "# filler\n" * 50
HEX = zlib.compress(PLAIN.encode()).hex()
RAW = [{"id": lzma.FILTER_LZMA2}]


def b85(data: bytes) -> str:
    return base64.b85encode(data).decode()


PACKED = {
    "raw lzma in base85": "import lzma as L,base64 as B\nexec(L.decompress(B.b85decode("
    f'"{b85(lzma.compress(PLAIN.encode(), lzma.FORMAT_RAW, filters=RAW))}"'
    '),format=L.FORMAT_RAW,filters=[{"id":L.FILTER_LZMA2}]))',
    "zlib in a compiled text": "import zlib\nfrom base64 import b85decode as d\ncode = "
    f"{b85(zlib.compress(PLAIN.encode()))!r}\nexec(compile(zlib.decompress(d(code)).decode(), "
    "__file__, 'exec'), globals())",
    "imports within": "exec(__import__('bz2').decompress(__import__('base64').b64decode("
    f"{base64.b64encode(bz2.compress(PLAIN.encode()))!r})))",
    "brotli": "import brotli,base64\nexec(brotli.decompress(base64.a85decode("
    f"{base64.a85encode(brotli.compress(PLAIN.encode()))!r})))",
    "joined literals": "import zlib\nexec(zlib.decompress(bytes.fromhex("
    f"{HEX[:40]!r}\n+ {HEX[40:]!r})))",
}


DECOMPRESSOR = "zlib.decompressobj().decompress"
CALL = f"zlib.decompress(base64.b85decode({b85(zlib.compress(PLAIN.encode()))!r}))"
HEAD = "import zlib, base64, builtins\n"
PACKED |= {
    "in a main block": f"{HEAD}if __name__ == '__main__':\n    exec({CALL})",
    "in a try": f"{HEAD}try:\n    exec({CALL})\nfinally:\n    pass",
    "in a function": f"{HEAD}def run():\n    exec({CALL}, globals())\nrun()",
    "in a function above its text": f"{HEAD}def run():\n    exec(text)\ntext = {CALL}\nrun()",
    "annotated": f"{HEAD}text: bytes = {CALL}\nexec(text)",
    "one of two": f"{HEAD}text, other = {CALL}, 1\nexec(text)",
    "by its module": f"{HEAD}builtins.exec({CALL})",
    "named on the way": f"{HEAD}exec(text := {CALL})",
    "by a lambda": HEAD
    + CALL.replace("zlib.decompress(", "d = lambda s: zlib.decompress(").replace(
        b85(zlib.compress(PLAIN.encode())).__repr__(), "s"
    )
    + f"\nexec(d({b85(zlib.compress(PLAIN.encode()))!r}))",
    "by a decompressor": f"{HEAD}exec({CALL.replace('zlib.decompress', DECOMPRESSOR)})",
}


@pytest.mark.parametrize("form", PACKED)
def test_packed_script_is_opened_for_reading(form: str) -> None:
    assert unpack(PACKED[form]) == PLAIN
    assert read_knobs(PACKED[form])["MODEL_DIM"].default == 512


def test_script_packed_twice_is_opened_twice() -> None:
    once = PACKED["raw lzma in base85"]
    twice = f"import zlib\nexec(zlib.decompress({zlib.compress(once.encode())!r}))"
    assert unpack(twice) == PLAIN


def test_file_beside_the_script_is_read_where_its_place_is_known(tmp_path: Path) -> None:
    (tmp_path / "decode.py").write_text(PLAIN)
    script = 'exec(open(__file__.replace("train_gpt.py", "decode.py")).read())'
    assert unpack(script, path=tmp_path / "train_gpt.py") == PLAIN
    assert unpack(script) == script


def test_no_file_elsewhere_is_opened(tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text(PLAIN)
    script = f"exec(open({str(tmp_path / 'secret.py')!r}).read())"
    assert unpack(script, path=tmp_path / "inner" / "train_gpt.py") == script


def test_nothing_of_the_script_is_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    script = f"import os\nexec(open({str(trap)!r}, 'w').write('x'))\nexec(os.mkdir({str(trap)!r}))"
    assert unpack(script, path=tmp_path / "train_gpt.py") == script
    assert not trap.exists()


@pytest.mark.parametrize(
    "script",
    [
        "import model\nexec(model.code)",
        "exec(input())",
        "import zlib\nexec(zlib.decompress(b'broken'))",
        "import lzma\nexec(lzma.decompress(1, 2, 3, 4, 5))",
        "import brotli\nexec(brotli.decompress(b'broken'))",
        "import zstandard\nexec(zstandard.decompress(b'broken'))",
        "exec(((((",
        "",
    ],
)
def test_what_cannot_be_opened_is_returned_as_it_is(script: str) -> None:
    assert unpack(script) == script


def test_plain_script_that_execs_a_helper_stays_itself() -> None:
    script = f"{PLAIN}\nexec('x = 1')\ndef main():\n    pass\n"
    assert unpack(script) == script


def test_program_that_execs_a_helper_within_a_function_stays_itself() -> None:
    script = f"{PLAIN}\ndef main():\n    exec('x = 1')\n" + "    print(x)\n" * 20 + "main()\n"
    assert unpack(script) == script


def test_other_methods_named_exec_unpack_nothing() -> None:
    script = f"{HEAD}import sqlite3\ndb = sqlite3.connect('x')\ndb.exec({CALL})\n"
    assert unpack(script) == script


def test_deep_script_is_walked_to_its_end() -> None:
    script = "x = " + "-" * 90 + "1\n" + "y = (" + "1+" * 900 + "1)\n" + PACKED["by its module"]
    assert unpack(script) == PLAIN


def test_decompression_bomb_is_cut_off() -> None:
    bomb = zlib.compress(b"x = 1\n" * (MOST_BYTES // 2))
    assert len(unpack(f"import zlib\nexec(zlib.decompress({bomb!r}))")) <= MOST_BYTES


def test_brotli_bomb_is_not_held_in_memory() -> None:
    bomb = brotli.compress(bytes(10 * MOST_BYTES), quality=5)
    script = f"import brotli\nexec(brotli.decompress({bomb!r}))"
    tracemalloc.start()
    found = unpack(script)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == script
    assert peak_bytes < 5 * MOST_BYTES
