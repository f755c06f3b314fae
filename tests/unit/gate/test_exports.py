from __future__ import annotations

import pytest

from pgolf_sweep.core.trial import VerdictKind
from pgolf_sweep.driver.opening import open_session
from pgolf_sweep.gate.exports import MOST_EXPORTS, smaller_exports
from pgolf_sweep.gate.gate import Gate
from trainer.export import EXPORT_KNOBS

CAP = 300_000
BASE = {"MODEL_DIM": 128, "NUM_LAYERS": 3, "VOCAB_SIZE": 256, "MATRIX_BITS": 8, "CODEC": "zlib"}

SWEEP = """
program: trainer
method: random
parameters:
  MODEL_DIM: {{values: [64, 128, 192]}}
  NUM_LAYERS: {{value: 3}}
  VOCAB_SIZE: {{value: 256}}
  MATRIX_BITS: {bits}
  {more}
pgolf:
  rules: rules.yaml
  resources: {{gpus: 0}}
  gate: {gate}
"""


@pytest.fixture
def make_session(tmp_path):
    def make(*, cap, bits="{values: [4, 5, 6, 8]}", more="", gate="{}"):
        (tmp_path / "rules.yaml").write_text(f"extends: demo\nartifact_cap_bytes: {cap}\n")
        file = tmp_path / "sweep.yaml"
        file.write_text(SWEEP.format(bits=bits, more=more, gate=gate))
        return open_session(file, data_root=tmp_path, need_data=False)

    return make


def settings_of(session, knobs):
    knobs = session.resolve(knobs)
    env = session.export_env(knobs, session.verdict(knobs))
    return env.get("SMALLER_EXPORTS", "").split(";") if env else None


def near_cap(session_factory, knobs, **options):
    """A session whose cap lies within the knobs' interval."""
    wide = session_factory(cap=10**9, **options)
    middle = wide.verdict(wide.resolve(knobs)).artifact_bytes.mid
    return session_factory(cap=round(middle), **options)


def test_exports_get_smaller_and_the_last_surely_fits(program):
    middle = Gate(program, CAP).verdict(BASE).artifact_bytes.mid
    gate = Gate(program, round(middle))
    found = smaller_exports(gate.verdict, BASE, gate.smaller_values(BASE))
    assert 1 < len(found) <= MOST_EXPORTS
    sizes = [gate.verdict(BASE | change).artifact_bytes.mid for change in found]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < middle
    worst = gate.verdict(BASE).artifact_bytes.high / middle
    assert sizes[-1] * worst <= middle


def test_a_codec_that_costs_no_score_is_tried_first(program):
    middle = Gate(program, CAP).verdict(BASE).artifact_bytes.mid
    gate = Gate(program, round(middle))
    others = {"MATRIX_BITS": [7, 6, 5, 4], "CODEC": ["lzma", "brotli"]}
    found = smaller_exports(gate.verdict, BASE, others)
    assert found[0] == {"CODEC": "brotli"}
    assert found[1:] == [{"MATRIX_BITS": 7}]


def test_a_trial_is_told_the_spaces_own_values(make_session):
    options = {"gate": "{export: [MATRIX_BITS]}"}
    session = near_cap(make_session, {"MODEL_DIM": 128, "MATRIX_BITS": 8}, **options)
    assert settings_of(session, {"MODEL_DIM": 128, "MATRIX_BITS": 8}) == ["MATRIX_BITS=6"]


def test_what_the_space_leaves_alone_goes_down_by_single_steps(make_session):
    session = near_cap(make_session, {"MODEL_DIM": 128}, bits="{value: 8}")
    found = settings_of(session, {"MODEL_DIM": 128, "MATRIX_BITS": 8})
    assert found
    assert {one.split("=")[0] for one in found} <= set(EXPORT_KNOBS)
    assert set(found) <= {f"{k}_BITS={b}" for k in ("MATRIX", "ATTN", "MLP", "EMBED")
                          for b in (4, 5, 6, 7)}  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "names"),
    [
        ("{export: []}", None),
        ("{export: [EMBED_BITS]}", {"EMBED_BITS"}),
        ("{enabled: false}", None),
    ],
)
def test_the_sweep_file_says_what_may_give(make_session, gate, names):
    session = near_cap(make_session, {"MODEL_DIM": 128, "MATRIX_BITS": 8})
    session = make_session(cap=session.rules.artifact_cap_bytes, gate=gate)
    found = settings_of(session, {"MODEL_DIM": 128, "MATRIX_BITS": 8})
    assert (None if found is None else {one.split("=")[0] for one in found}) == names


def test_far_below_the_cap_nothing_is_prepared(make_session):
    assert settings_of(make_session(cap=10**7), {"MODEL_DIM": 64, "MATRIX_BITS": 8}) is None


def test_a_knob_on_which_others_depend_does_not_change(make_session):
    options = {
        "bits": "{values: [4, 8]}",
        "more": "CLIP_SIGMAS: {min: 3.0, max: 9.0, when: {MATRIX_BITS: 8}}",
    }
    knobs = {"MODEL_DIM": 128, "MATRIX_BITS": 8, "CLIP_SIGMAS": 4.0}
    session = near_cap(make_session, knobs, **options)
    assert "MATRIX_BITS" not in {one.split("=")[0] for one in settings_of(session, knobs)}


def test_the_probability_to_fit_agrees_with_the_interval(program):
    middle = Gate(program, CAP).verdict(BASE).artifact_bytes

    def at(cap):
        return Gate(program, round(cap), 0.99).verdict(BASE)

    assert at(middle.mid).fit_probability == pytest.approx(0.5, abs=0.02)
    assert at(middle.low).fit_probability == pytest.approx(0.005, abs=0.002)
    assert at(middle.high).fit_probability == pytest.approx(0.995, abs=0.002)
    assert at(10 * middle.high).fit_probability > 0.9999
    assert at(middle.mid).kind is VerdictKind.NEAR
