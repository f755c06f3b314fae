"""Shards and tokenizers: where they lie, whether they are sound, and how they are made.

Importing this package costs milliseconds: sentencepiece and huggingface_hub load where used.
"""

from __future__ import annotations

from pgolf_sweep.data.dataset import (
    DataSet,
    Split,
    Survey,
    check,
    from_paths,
    identity,
    locate,
    present,
    survey,
)

__all__ = [
    "DataSet",
    "Split",
    "Survey",
    "check",
    "from_paths",
    "identity",
    "locate",
    "present",
    "survey",
]
