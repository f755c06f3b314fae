"""A stranger's artifact is predicted from its probe, or the gate says why it is not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.config.types import SchemeBlock
from pgolf_sweep.core.trial import VerdictKind
from pgolf_sweep.gate.gate import Gate
from pgolf_sweep.gate.physics.entropy import ScaleRule
from pgolf_sweep.gate.probed import Foreign, foreign_of
from pgolf_sweep.gate.read_based import Scheme, group_of
from pgolf_sweep.script.probe.prober import Probed, ProbedTensor, Prober, QuantizedClass, Unprobed
from pgolf_sweep.script.program import load_program

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.core.trial import KnobValue

SCRIPTS = Path(__file__).parents[2] / "data" / "scripts"
MATRIX = ProbedTensor(name="blocks.0.mlp.weight", shape=(1024, 512), dtype="float32")
GAIN = ProbedTensor(name="blocks.0.scale", shape=(512,), dtype="float32")
FLAT = {0.02: 400_000.0, 0.16: 400_000.0}
STEEP = {0.005 * 2.0**k: 100_000.0 + 60_000.0 * k for k in range(9)}


def found(curve: Mapping[float, float] | None = None, **changes: object) -> Probed:
    classes = () if curve is None else (matrix_class(curve),)
    values: dict[str, object] = {"model_params": 524_800, "tensors": (MATRIX, GAIN)}
    values |= {"classes": classes, "codec": "zlib", "quantizer": "quantize_state_dict"}
    return Probed(**values | changes)  # type: ignore[arg-type]


def matrix_class(curve: Mapping[float, float]) -> QuantizedClass:
    return QuantizedClass(
        name="blocks.*.mlp.weight", shape=(1024, 512), count=1, kept=False, levels=63,
        bytes_by_sigma=curve,
    )  # fmt: skip


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


def test_width_of_a_group_is_that_of_most_of_it() -> None:
    kept = QuantizedClass(
        name="blocks.*.mlp.gate", shape=(8, 512), count=1, kept=True, levels=0,
        bytes_by_sigma={0.02: 8_000.0},
    )  # fmt: skip
    both = found(FLAT)
    predicted = Foreign(FakeProber(replace(both, classes=(*both.classes, kept))), {}).expected({})
    assert {group.group: group.bits for group in predicted.groups}["mlp"] == 6


def test_flat_curve_gives_a_narrow_interval_and_a_steep_one_a_wide_interval() -> None:
    flat = gate(FakeProber(found(FLAT))).verdict({}).model_bytes
    steep = gate(FakeProber(found(STEEP))).verdict({}).model_bytes
    assert flat is not None
    assert steep is not None
    assert 400_000 < flat.mid < 410_000
    assert (flat.high - flat.low) / flat.mid < 0.25 < (steep.high - steep.low) / steep.mid


def test_parameter_that_is_a_single_number_is_predicted_too() -> None:
    scalar = QuantizedClass(
        name="skip_gain", shape=(), count=3, kept=True, levels=0, bytes_by_sigma={0.02: 2.0}
    )
    both = found(classes=(matrix_class(FLAT), scalar))
    assert gate(FakeProber(both)).verdict({}).kind is VerdictKind.FITS


def test_probed_configuration_over_the_cap_is_discarded_before_anything_ran() -> None:
    verdict = gate(FakeProber(found(FLAT)), cap=300_000).verdict({})
    assert (verdict.kind, verdict.regime) == (VerdictKind.TOO_BIG, "probed")
    assert verdict.model_params == 524_800


def test_one_finished_trial_narrows_its_own_configuration_and_the_others() -> None:
    judge = gate(FakeProber(found(STEEP)))
    before, measured = judge.verdict({"A": 1}).model_bytes, 500_000
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


def test_unknown_quantizer_is_said_and_then_inferred_from_the_first_trial() -> None:
    judge = gate(FakeProber(found(notes=("no quantizer recognised: none is called",))))
    first = judge.verdict({"A": 1})
    assert first.kind is VerdictKind.UNKNOWN
    assert "no quantizer recognised" in first.reason
    assert "pgolf.gate.scheme" in first.reason
    assert first.model_params == 524_800
    judge.learn({"A": 1}, 410_000)
    later = judge.verdict({"A": 2})
    assert later.model_bytes is not None
    assert later.model_bytes.mid == pytest.approx(410_000, rel=0.01)


def test_declared_scheme_needs_no_quantizer() -> None:
    scheme = Scheme(bits=6, scale=ScaleRule.SDCLIP, parameter=6.0, codec="brotli")
    verdict = gate(FakeProber(found()), scheme).verdict({})
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
    judge = gate(FakeProber(found(FLAT), {"HEADS=3": refused}))
    assert judge.verdict({"HEADS": 3}).kind is VerdictKind.INVALID
    assert gate(FakeProber(refused)).verdict({"HEADS": 3}).kind is VerdictKind.UNKNOWN


def test_part_of_a_model_is_never_taken_for_the_whole() -> None:
    verdict = gate(FakeProber(found(FLAT, incomplete=True, notes=("mamba",)))).verdict({})
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
    defaults = {name: k.default for name, k in program.knobs.items() if k.default is not None}
    verdict = Gate(program, 1_000_000, foreign=Foreign(Prober(program), defaults)).verdict({})
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
