"""A script's surroundings: its launcher's variables, programs, tokenizers, a newer Python."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
import types
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.fstrings import readable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


LAUNCHED = {
    "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": "0",
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
}  # fmt: skip
"""What `torchrun` tells a script."""


class _Launched(os._Environ):  # type: ignore[type-arg] # os.environ's class
    """The environment of one process; a script that takes `torchrun` for granted finds its rank."""

    def __getitem__(self, name: str) -> str:
        try:
            return str(super().__getitem__(name))
        except KeyError:
            if name not in LAUNCHED:
                raise
            return LAUNCHED[name]

    def __contains__(self, name: object) -> bool:
        try:
            super().__getitem__(name)
        except KeyError:
            return False
        return True

    def get(self, name: str, default: Any = None) -> Any:
        return super().__getitem__(name) if name in self else default


def install(vocabulary: Callable[[], int]) -> None:
    """Put all of it into this process, for the rest of its life.

    Args:
        vocabulary: Pieces of the tokenizer.
    """
    os.environ.__class__ = _Launched
    _patch_programs()
    _patch_tokenizer(vocabulary)
    _patch_exec()


def _patch_programs() -> None:
    """Programs that scripts ask: the minifier is run for real, in this process; others say nothing.

    The bytes of a script that packs itself depend on its minifier.
    """
    module: Any = subprocess

    def run(command: Any, *_: Any, **keywords: Any) -> Any:
        words = command.split() if isinstance(command, str) else [str(word) for word in command]
        out: Any = _minified(words, keywords) if any("minif" in word for word in words) else ""
        if not (keywords.get("text") or keywords.get("universal_newlines") or
                keywords.get("encoding")):  # fmt: skip
            out = out.encode()
        return subprocess.CompletedProcess(words, 0, out, out[:0])

    module.run = run
    module.check_output = lambda *args, **keywords: run(*args, **keywords).stdout
    module.check_call = module.call = lambda *_, **__: 0
    module.getoutput = lambda *_, **__: ""
    system: Any = os
    system.system = lambda _: 0


def _minified(words: list[str], keywords: Mapping[str, Any]) -> str:
    """What `pyminify` writes to its standard output, or into the file that it is told."""
    import python_minifier  # noqa: PLC0415 - seldom asked for

    given = keywords.get("input")
    text = given.decode() if isinstance(given, bytes) else given
    files = [word for word in words[1:] if word.endswith(".py")]
    if text is None and files:
        with open(files[0], encoding="utf-8") as source:
            text = source.read()
    made: str = python_minifier.minify(
        text or "",
        rename_locals="--no-rename-locals" not in words,
        rename_globals="--rename-globals" in words,
        hoist_literals="--no-hoist-literals" not in words,
        remove_literal_statements="--remove-literal-statements" in words,
        remove_asserts="--remove-asserts" in words,
        remove_debug="--remove-debug" in words,
    )
    for flag in ("--output", "-o"):
        if flag in words:
            with open(words[words.index(flag) + 1], "w", encoding="utf-8") as out:
                out.write(made)
    if "--in-place" in words and files:
        with open(files[0], "w", encoding="utf-8") as out:
            out.write(made)
    return made


def _patch_tokenizer(vocabulary: Callable[[], int]) -> None:
    class Processor:
        """A tokenizer of as many pieces as the model has."""

        def __init__(self, *_: Any, **__: Any) -> None:
            self._size = vocabulary()

        def load(self, *_: Any, **__: Any) -> bool:
            return True

        Load = LoadFromFile = load_from_file = load

        def vocab_size(self) -> int:
            return self._size

        GetPieceSize = get_piece_size = piece_size = __len__ = vocab_size

        def id_to_piece(self, index: Any) -> Any:
            return [f"p{one}" for one in index] if isinstance(index, list) else f"p{index}"

        IdToPiece = id_to_piece

        def piece_to_id(self, _: Any) -> int:
            return 0

        PieceToId = piece_to_id

        def is_control(self, _: Any) -> bool:
            return False

        is_unknown = is_unused = is_byte = IsControl = IsUnknown = IsUnused = IsByte = is_control

        def bos_id(self) -> int:
            return 1

        eos_id = unk_id = pad_id = bos_id

        def encode(self, text: Any, *_: Any, **__: Any) -> list[int]:
            return [0] * max(1, len(str(text)) // 4)

        Encode = EncodeAsIds = encode_as_ids = encode

        def decode(self, ids: Any, *_: Any, **__: Any) -> Any:
            return "".join("p" for _ in ids) if isinstance(ids, list) else "p"

        Decode = DecodeIds = decode_ids = decode

    module: Any = types.ModuleType("sentencepiece")
    module.SentencePieceProcessor = Processor
    sys.modules["sentencepiece"] = module


def _patch_exec() -> None:
    """Let text that a packed script runs be of a newer Python."""
    module: Any = builtins
    true_exec, true_compile = builtins.exec, builtins.compile

    def compiled(source: Any, filename: Any, mode: Any, *args: Any, **keywords: Any) -> Any:
        if len(args) < 2:
            keywords.setdefault("dont_inherit", True)  # of this module's future statements
        try:
            return true_compile(source, filename, mode, *args, **keywords)
        except SyntaxError as error:
            if "f-string" not in (error.msg or "") or not isinstance(source, str | bytes):
                raise
        text = source.decode() if isinstance(source, bytes) else source
        return true_compile(readable(text), filename, mode, *args, **keywords)

    def execute(source: Any, *spaces: Any, **keywords: Any) -> None:
        if not spaces and not keywords:
            caller = sys._getframe(1)
            spaces = (caller.f_globals, caller.f_locals)
        if isinstance(source, str | bytes):
            source = compiled(source, "<string>", "exec")
        true_exec(source, *spaces, **keywords)

    module.exec = execute
    module.compile = compiled
