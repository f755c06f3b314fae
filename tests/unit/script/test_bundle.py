from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pgolf_sweep.script.bundle import bundle, join
from pgolf_sweep.script.pack import pack

EXACT = re.compile(r"_roundtrip_exact (.*)")


def test_bundle_is_one_file_without_the_package():
    source = bundle().decode()
    modules = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not any(module.split(".")[0] in {"trainer", "pgolf_sweep"} for module in modules)
    assert "noqa" not in source
    assert len(pack(bundle(), ours=True).script) <= 20_000


def test_bundle_is_deterministic():
    first = bundle()
    bundle.cache_clear()
    assert bundle() == first


def test_joined_modules_do_what_they_did_apart():
    sources = {
        "one": '"""One.\n\nMore."""\nfrom __future__ import annotations\nimport math\n\n\n'
        'def area(r: float) -> float:\n    """Long\n    story."""\n    return math.pi * r * r\n',
        "two": '"""Two."""\nfrom __future__ import annotations\nfrom typing import TYPE_CHECKING\n'
        "from trainer.one import area\n\nif TYPE_CHECKING:\n    from nowhere import Nothing\n\n"
        "RESULT: Nothing = round(area(2.0), 2)\n",
    }
    namespace: dict[str, object] = {}
    exec(compile(join(sources), "joined", "exec"), namespace)  # noqa: S102 - what is tested
    assert namespace["RESULT"] == 12.57


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("def f(): ...\n", "one and two both define f"),
        ("from trainer.one import f as g\n", "two: a renamed import from trainer.one"),
        ("from .one import f\n", "two: a relative import"),
    ],
)
def test_what_cannot_be_joined_is_refused(second, message):
    with pytest.raises(ValueError, match=message):
        join({"one": "def f(): ...\n", "two": second})


def write_tiny_data(folder: Path) -> dict[str, str]:
    """A Markov chain as shards, and a tokenizer of as many pieces as it has tokens."""
    import sentencepiece

    text = "a tokenizer of nothing but the bytes and the letters of this one line, word by word"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text] * 4),
        model_prefix=str(folder / "tiny"),
        vocab_size=290,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    rng = np.random.default_rng(0)
    for split, count in (("train", 5000), ("val", 300)):
        header = np.zeros(256, dtype="<i4")
        header[:3] = 20240520, 1, count
        tokens = rng.integers(3, 290, size=count).astype("<u2")
        shard = folder / f"fineweb_{split}_000000.bin"
        shard.write_bytes(header.tobytes() + tokens.tobytes())
    knobs = {
        "DATA_PATH": folder,
        "TOKENIZER_PATH": folder / "tiny.model",
        "VOCAB_SIZE": 290,
        "NUM_LAYERS": 2,
        "MODEL_DIM": 32,
        "NUM_HEADS": 2,
        "NUM_KV_HEADS": 1,
        "TRAIN_SEQ_LEN": 16,
        "TRAIN_BATCH_TOKENS": 128,
        "VAL_BATCH_SIZE": 512,
        "ITERATIONS": 8,
        "MATRIX_BITS": 5,
        "EMBED_BITS": 3,
        "QAT_FRAC": 0.5,
        "NUM_LOOPS": 1,
        "LOOP_START": 1,
        "LOOP_END": 1,
        "EMA_DECAY": 0.9,
        "GRAD_CLIP_NORM": 1,
        "GPTQ_BATCHES": 1,
        "LQER_RANK": 1,
        "RANS": 1,
        "EVAL_STRIDE": 8,
        "TTT_ENABLED": 1,
        "TTT_CHUNK_SIZE": 16,
        "TTT_LORA_RANK": 2,
        "ATTN_GATE_ENABLED": 1,
        "SMEAR_GATE_ENABLED": 1,
        "SKIP_GATES_ENABLED": 1,
        "CHECKPOINT": "left",
        "ARTIFACT_CAP_BYTES": 1000,
        "SMALLER_EXPORTS": "MATRIX_BITS=4",
        "MAX_WALLCLOCK_SECONDS": 0,
        "OMP_NUM_THREADS": 1,
        "PATH": os.environ["PATH"],
    }
    return {name: str(value) for name, value in knobs.items()}


@pytest.mark.slow
def test_bundle_package_and_packed_bundle_write_identical_artifacts_and_scores(tmp_path):
    env = write_tiny_data(tmp_path)
    results = []
    scripts = {"bundle": bundle(), "packed": pack(bundle(), ours=True).script}
    for name in ("bundle", "package", "packed"):
        folder = tmp_path / name
        folder.mkdir()
        if name in scripts:
            (folder / "train_gpt.py").write_bytes(scripts[name])
            command, extra = ["train_gpt.py"], {}
        else:
            command = ["-m", "trainer.train"]
            extra = {"PYTHONPATH": str(Path(__file__).parents[3])}
        done = subprocess.run(
            [sys.executable, "-W", "error", *command],
            env={**env, **extra},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        artifact = (folder / "final_model.int5.ptz").read_bytes()
        results.append((artifact, EXACT.search(done.stdout)[1]))
        if name in scripts:
            assert f"Code size: {len(scripts[name])} bytes" in done.stdout
    assert results[0] == results[1] == results[2]
