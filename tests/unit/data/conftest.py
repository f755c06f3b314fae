from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.data import build
from pgolf_sweep.data.corpus import stdlib_documents

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def demo_built(tmp_path_factory: pytest.TempPathFactory) -> build.Built:
    """The whole demo data set, made once for all tests of this folder."""
    return build.demo(tmp_path_factory.mktemp("demo-data"))


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """The demo's documents: parsing the library takes seconds."""
    return stdlib_documents()


@pytest.fixture
def texts(tmp_path: Path) -> list[Path]:
    """A small corpus of the user's own: two text files and a .jsonl."""
    sentence = "the quick brown fox jumps over the lazy dog while it rains in Spain"
    words = sentence.split()
    paragraphs = [
        " ".join(words[(i * k) % len(words)] for k in range(1, 40)) + f", {i}." for i in range(900)
    ]
    first, second, third = tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c.jsonl"
    first.write_text("\n\n".join(paragraphs[:400]))
    second.write_text("\r\n\r\n".join(paragraphs[400:800]), newline="")
    third.write_text("".join(f'{{"text": "{text}"}}\n' for text in paragraphs[800:]))
    return [first, second, third]
