"""Shards and tokenizers that are not there: made in the contest's format where the script looks."""

from __future__ import annotations

import builtins
import glob
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

TRAIN_TOKENS = 4_200_000
VALIDATION_TOKENS = 65_600
HEADER_INTEGERS = 256
MAGIC = 20240520
"""Shards begin with 256 little-endian integers of 32 bits: this, a version, the count of tokens."""


class MadeData:
    """Shards in the temporary folder of one run, made when they are first asked for.

    Args:
        folder: Where they are written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = builtins.open
        self._made: dict[str, str] = {}

    def install(self) -> None:
        """Answer `glob` and `open` for data that does not exist, for the rest of this process."""
        module: Any = glob
        true_glob, true_path_glob = glob.iglob, Path.glob
        opener: Any = builtins
        path: Any = Path

        def found(pattern: Any, *args: Any, **keywords: Any) -> list[str]:
            there = list(true_glob(pattern, *args, **keywords))
            return there or self._standing_for(str(pattern))

        def path_found(one: Path, pattern: Any, *args: Any, **keywords: Any) -> Any:
            there = list(true_path_glob(one, pattern, *args, **keywords))
            return iter(there or [Path(name) for name in self._standing_for(f"{one}/{pattern}")])

        def opened(file: Any, mode: str = "r", *args: Any, **keywords: Any) -> Any:
            try:
                return self._open(file, mode, *args, **keywords)
            except FileNotFoundError:
                made = self._standing_for(str(file)) if "w" not in mode else []
                if not made:
                    raise
                return self._open(made[0], mode, *args, **keywords)

        module.glob = found
        module.iglob = lambda *args, **keywords: iter(found(*args, **keywords))
        path.glob = path_found
        opener.open = io.open = opened
        self._patch_existence()
        self._patch_numpy()

    def _patch_existence(self) -> None:
        path: Any = Path
        module: Any = os.path
        for owner, name in ((path, "exists"), (path, "is_file"), (path, "is_dir"),
                            (module, "exists"), (module, "isfile"), (module, "isdir")):  # fmt: skip
            true = getattr(owner, name)
            setattr(owner, name, self._exists(true))
        true_stat = Path.stat

        def stat(one: Path, **keywords: Any) -> Any:
            try:
                return true_stat(one, **keywords)
            except FileNotFoundError:
                made = self._standing_for(str(one))
                if not made:
                    raise
                return true_stat(Path(made[0]), **keywords)

        path.stat = stat
        size = module.getsize
        module.getsize = lambda file: size((self._standing_for(str(file)) or [file])[0])

    def _exists(self, true: Any) -> Any:
        def exists(file: Any) -> bool:
            return bool(true(file)) or _is_data(str(file))

        return exists

    def _patch_numpy(self) -> None:
        module: Any = np
        for name in ("fromfile", "memmap", "load"):
            true = getattr(np, name)

            def read(file: Any, *args: Any, true: Any = true, **keywords: Any) -> Any:
                if isinstance(file, str | os.PathLike) and not Path(file).is_file():
                    file = (self._standing_for(str(file)) or [str(file)])[0]
                return true(file, *args, **keywords)

            if not isinstance(true, type):
                setattr(module, name, read)

    def _standing_for(self, pattern: str) -> list[str]:
        """Files that stand for a pattern or path of data; none for anything else."""
        if os.path.lexists(pattern) or not _is_data(pattern):
            return []
        name = Path(pattern).name.lower()
        if name.endswith((".model", ".vocab", ".json", ".txt")):
            return [self._written("tokenizer" + Path(name).suffix, _text_for(name))]
        if "byte" in name and "train" not in name:
            # Bytes of each validation token, beside the shard.
            return [self._written("made_val_bytes.bin", _shard(VALIDATION_TOKENS, ones=True))]
        validates = "val" in name and "train" not in name
        count = VALIDATION_TOKENS if validates else TRAIN_TOKENS
        kind = "val" if validates else "train"
        return [self._written(f"fineweb_{kind}_000000.bin", _shard(count))]

    def _written(self, name: str, content: bytes) -> str:
        if name not in self._made:
            path = self._folder / name
            with self._open(path, "wb") as out:
                out.write(content)
            self._made[name] = str(path)
        return self._made[name]


def _is_data(path: str) -> bool:
    name = path.rsplit("/", 1)[-1].lower()
    if name.endswith((".bin", ".bin*", ".npy")):
        return "final" not in name and "model" not in name and "quant" not in name
    return name.endswith((".model", ".vocab")) or (
        "tokenizer" in path.lower() and name.endswith(".json")
    )


def _text_for(name: str) -> bytes:
    return json.dumps({}).encode() if name.endswith(".json") else b"made"


def _shard(count: int, *, ones: bool = False) -> bytes:
    header = np.zeros(HEADER_INTEGERS, dtype="<i4")
    header[:3] = MAGIC, 1, count
    tokens = np.ones(count, dtype="<u2")
    if not ones:
        tokens = (np.arange(count) % 200 + 1).astype("<u2")
    return header.tobytes() + tokens.tobytes()
