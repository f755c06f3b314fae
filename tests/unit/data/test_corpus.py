from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.core.errors import DataError, InfraError
from pgolf_sweep.data import corpus

if TYPE_CHECKING:
    from pathlib import Path


def test_clean_text_has_nothing_that_a_tokenizer_would_lose() -> None:
    assert corpus.clean("  a\r\nb\0c\u2581d   \n\n") == "a\nb c d"


def test_standard_library_is_read_without_importing_it(tmp_path: Path) -> None:
    module = tmp_path / "json.py"
    module.write_text(
        '"""A module docstring that is long enough to keep."""\n'
        "raise SystemExit\n"
        "class A:\n"
        '    """A class docstring that is long enough to keep."""\n'
        "    def f(self):\n"
        '        """A method docstring that is long enough to keep."""\n'
        "    def g(self):\n"
        '        """Too short."""\n'
    )
    (tmp_path / "broken.py").write_text("def")
    (tmp_path / "sitecustomize.py").write_text(f'"""{"not of the library " * 9}"""')
    [document] = corpus._modules(tmp_path, set())
    assert document.startswith("json\n\nA module docstring")
    assert "json.A\n\n" in document
    assert "json.A.f\n\n" in document
    assert "json.A.g" not in document


@pytest.mark.parametrize("lacking", ["sources", "pydoc_data"])
def test_python_without_its_documentation_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    if lacking == "sources":
        monkeypatch.setattr(corpus.sysconfig, "get_path", lambda _: str(tmp_path))
        monkeypatch.setattr(corpus, "_topics", lambda _: iter(["one topic"]))
    else:
        monkeypatch.setitem(sys.modules, "pydoc_data", None)
    with pytest.raises(InfraError, match="too little documentation") as caught:
        corpus.stdlib_documents()
    assert "from-text" in caught.value.next_step


def test_twins_of_a_docstring_count_once(tmp_path: Path) -> None:
    for name in ("decimal", "_pydecimal"):
        (tmp_path / f"{name}.py").write_text(f'"""{"The same words in both. " * 5}"""')
    assert len(list(corpus._modules(tmp_path, set()))) == 1


def test_book_is_cut_at_blank_lines_into_documents(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join("word " * 300 + str(i) for i in range(9)))
    documents = corpus.file_documents([path])
    assert len(documents) == 3
    assert all(document.count("\n\n") == 2 for document in documents)


def test_jsonl_gives_a_document_a_line(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_text('{"text": "one"}\n\n{"text": "two\\nlines"}\n')
    assert corpus.file_documents([path]) == ["one", "two\nlines"]
    path.write_text('{"text": "one"}\n{"words": "two"}\n')
    with pytest.raises(DataError) as caught:
        corpus.file_documents([path])
    assert caught.value.where == f"{path}:2"


def test_file_that_is_not_utf8_or_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8") as caught:
        corpus.file_documents([path])
    assert caught.value.where == f"{path}, byte 2"
    with pytest.raises(DataError, match=r"cannot read gone\.txt"):
        corpus.file_documents([tmp_path / "gone.txt"])
