"""A stranger's artifact is predicted from its probe, or the gate says why it is not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.config.types import SchemeBlock
from pgolf_sweep.core.trial import VerdictKind
from pgolf_sweep.gate.declared import Scheme, group_of
from pgolf_sweep.gate.gate import Gate
from pgolf_sweep.gate.physics.entropy import ScaleRule
from pgolf_sweep.gate.probed import Foreign, foreign_of
from pgolf_sweep.script.probe.prober import Probed, ProbedTensor, Unprobed
from pgolf_sweep.script.program import load_program

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.core.trial import KnobValue

SCRIPTS = Path(__file__).parents[2] / "data" / "scripts"
MATRIX = ProbedTensor(name="blocks.0.mlp.weight", shape=(1024, 512), dtype="float32")
GAIN = ProbedTensor(name="blocks.0.scale", shape=(512,), dtype="float32")
SIX_BITS = Scheme(bits=6, scale=ScaleRule.SDCLIP, parameter=6.0, codec="brotli")


def found(**changes: object) -> Probed:
    values: dict[str, object] = {"model_params": 524_800, "tensors": (MATRIX, GAIN)}
    return Probed(**values | changes)  # type: ignore[arg-type]


@dataclass
class FakeProber:
    answer: Probed | Unprobed
    others: dict[str, Probed | Unprobed] = field(default_factory=dict)

    def probe(self, knobs: Mapping[str, KnobValue]) -> Probed | Unprobed:
        return self.others.get(" ".join(f"{k}={v}" for k, v in knobs.items()), self.answer)


@dataclass
class Stranger:
    builtin = False
    code_bytes = 10_000
    knobs: dict[str, object] = field(default_factory=dict)


def gate(prober: FakeProber, scheme: Scheme | None = None, cap: int = 600_000) -> Gate:
    return Gate(Stranger(), cap, 0.99, foreign=Foreign(prober, {}, scheme))


def test_probed_configuration_over_the_cap_is_discarded_before_anything_ran() -> None:
    verdict = gate(FakeProber(found()), SIX_BITS, cap=200_000).verdict({})
    assert (verdict.kind, verdict.regime) == (VerdictKind.TOO_BIG, "probed")
    assert verdict.model_params == 524_800


def test_one_finished_trial_narrows_its_own_configuration_and_the_others() -> None:
    judge = gate(FakeProber(found()), SIX_BITS)
    before, measured = judge.verdict({"A": 1}).model_bytes, 310_000
    judge.learn({"A": 1}, measured)
    own, other = judge.verdict({"A": 1}), judge.verdict({"A": 2})
    assert own.regime == "measured"
    assert other.regime == "calibrated"
    assert before is not None
    for verdict, error, width in ((own, 0.02, 0.5), (other, 0.05, 0.9)):
        assert verdict.model_bytes is not None
        assert verdict.model_bytes.mid == pytest.approx(measured, rel=error)
        interval = verdict.model_bytes
        assert interval.high - interval.low < width * (before.high - before.low)


def test_unknown_export_is_said_and_then_inferred_from_the_first_trial() -> None:
    judge = gate(FakeProber(found()))
    first = judge.verdict({"A": 1})
    assert first.kind is VerdictKind.UNKNOWN
    assert "its export did not run" in first.reason
    assert "pgolf.gate.scheme" in first.reason
    assert first.model_params == 524_800
    judge.learn({"A": 1}, 410_000)
    later = judge.verdict({"A": 2})
    assert later.model_bytes is not None
    assert later.model_bytes.mid == pytest.approx(410_000, rel=0.01)


def test_declared_scheme_needs_no_export() -> None:
    verdict = gate(FakeProber(found()), SIX_BITS).verdict({})
    assert verdict.model_bytes is not None
    bits = 2.047 + math.log2(31 / 6)
    assert verdict.model_bytes.mid == pytest.approx(524_288 * bits / 8 * 1.022, rel=0.01)


def test_unprobed_script_is_unknown_with_the_reason_and_falls_back_to_measured_runs() -> None:
    judge = gate(FakeProber(Unprobed(reason="it downloads")))
    assert judge.verdict({}).kind is VerdictKind.UNKNOWN
    assert "it downloads" in judge.verdict({}).reason
    judge.learn({}, 500_000)
    verdict = judge.verdict({})
    assert verdict.regime == "measured"
    assert verdict.model_bytes is not None
    assert verdict.model_bytes.mid == 500_000


def test_model_that_only_the_default_configuration_can_build_is_invalid() -> None:
    refused = Unprobed(reason="cannot be built: ValueError: heads", refused_by_script=True)
    judge = gate(FakeProber(found(), {"HEADS=3": refused}))
    assert judge.verdict({"HEADS": 3}).kind is VerdictKind.INVALID
    assert gate(FakeProber(refused)).verdict({"HEADS": 3}).kind is VerdictKind.UNKNOWN


def test_part_of_a_model_is_never_taken_for_the_whole() -> None:
    verdict = gate(FakeProber(found(incomplete=True, notes=("mamba",)))).verdict({})
    assert verdict.kind is VerdictKind.UNKNOWN
    assert "mamba" in verdict.reason


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("tok_emb.weight", "embed"), ("lm_head.weight", "head"),
        ("blocks.0.attn.c_q.weight", "attn"), ("blocks.3.mlp.proj.weight", "mlp"),
        ("transformer.h.0.c_proj.weight", "attn"),
    ],
)  # fmt: skip
def test_groups_follow_the_names_that_scripts_use(name: str, group: str) -> None:
    assert group_of(name) == group


def test_prediction_agrees_with_what_the_script_itself_would_write() -> None:
    import io
    import runpy
    import zlib

    import torch

    program = load_program("tiny_gpt.py", base=SCRIPTS)
    verdict = Gate(program, 1_000_000, foreign=foreign_of(program)).verdict({})
    names = runpy.run_path(str(SCRIPTS / "tiny_gpt.py"))
    torch.manual_seed(0)
    model = names["GPT"](256, 2, 128, 4, 1.0)
    state = {name: torch.randn_like(t) * 0.05 for name, t in model.state_dict().items()}
    buffer = io.BytesIO()
    torch.save(names["quantize_state_dict_int6"](state, names["Hyperparameters"]()), buffer)
    assert verdict.model_bytes is not None
    written = len(zlib.compress(buffer.getvalue(), 9))
    assert verdict.model_bytes.mid == pytest.approx(written, rel=0.03)
    assert verdict.model_bytes.low < written < verdict.model_bytes.high


def test_our_own_trainer_is_not_probed() -> None:
    ours = load_program("trainer", base=SCRIPTS)
    assert foreign_of(ours) is None
    assert foreign_of(load_program("tiny_gpt.py", base=SCRIPTS), SchemeBlock(bits=4)) is not None
