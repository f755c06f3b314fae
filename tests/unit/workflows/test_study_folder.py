"""A launch continues its study and refuses to mix two."""

from __future__ import annotations

import dataclasses
from contextlib import closing

import pytest

from pgolf_sweep.config.types import NodesBlock, WarmStart
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import StudyPaths, read_json, write_json
from pgolf_sweep.core.record import State, ranked
from pgolf_sweep.data import DataSet
from pgolf_sweep.driver.opening import stored_program
from pgolf_sweep.nodes.check import look
from pgolf_sweep.script.pack import packed_program
from pgolf_sweep.script.program import from_files
from pgolf_sweep.search.study import open_study
from pgolf_sweep.workflows.launch_support import node_comparison
from pgolf_sweep.workflows.study_folder import (
    begin_trials,
    changes,
    check_identity,
    claim_storage,
    enqueue_warm_start,
    has_run_its_course,
    prepare_folder,
)

WIDER = "{distribution: q_uniform, min: 16, max: 512, q: 16}"


def with_text(bench, **replacements):
    text = bench.session.spec.text
    for old, new in replacements.items():
        text = text.replace(old, new)
    return dataclasses.replace(
        bench.session, spec=dataclasses.replace(bench.session.spec, text=text)
    )


def prepare(bench, session=None):
    sweep = bench.folder / "study.yaml"
    return prepare_folder(
        session or bench.session, bench.paths, sweep=sweep, data_root=bench.folder / "data"
    )


def test_first_launch_makes_the_folder_and_the_second_continues(make_bench):
    bench = make_bench()
    assert prepare(bench) is False
    created_at = read_json(bench.paths.origin)["created_at"]
    assert prepare(bench) is True
    assert read_json(bench.paths.origin)["created_at"] == created_at
    assert bench.paths.sweep.read_text() == bench.session.spec.text
    assert stored_program(bench.paths).sha256 == bench.session.program.sha256


def test_a_packed_programs_plain_form_lies_beside_it(make_bench):
    bench = make_bench()
    long = bench.session.program.files["train_gpt.py"] + b"# a comment that packing drops\n" * 99
    packed = packed_program(from_files("train_gpt.py", {"train_gpt.py": long}, builtin=False))
    prepare(bench, dataclasses.replace(bench.session, program=packed))
    assert bench.paths.readable.read_bytes() == long
    assert stored_program(bench.paths).sha256 == packed.sha256


def test_larger_run_cap_continues_the_study(make_bench):
    bench = make_bench()
    prepare(bench)
    longer = with_text(bench, **{"run_cap: 12": "run_cap: 99"})
    assert prepare(bench, longer) is True
    assert "run_cap: 99" in bench.paths.sweep.read_text()


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("max: 256", "max: 512", "parameters.MODEL_DIM"),
        ("method: tpe", "method: random", "method"),
        ("seed: 3", "seed: 4", "pgolf.seed"),
    ],
)
def test_changed_search_is_refused_by_its_key(make_bench, old, new, key):
    bench = make_bench()
    prepare(bench)
    with pytest.raises(InputError) as caught:
        prepare(bench, with_text(bench, **{old: new}))
    assert key in (caught.value.got or "")
    line = "`warm_start: [{study: study, trials: matching}]`"
    assert f"launch with --name NEW and, to go on from its trials, under pgolf {line}" in (
        caught.value.next_step or ""
    )
    assert bench.paths.sweep.read_text() == bench.session.spec.text


def test_changed_program_is_refused(make_bench):
    bench = make_bench()
    prepare(bench)
    files = {"train_gpt.py": bench.session.program.files["train_gpt.py"] + b"# better\n"}
    other = from_files("train_gpt.py", files, builtin=False)
    with pytest.raises(InputError, match="another version of its program"):
        prepare(bench, dataclasses.replace(bench.session, program=other))


def test_program_edited_inside_the_study_is_noticed(make_bench):
    bench = make_bench()
    prepare(bench)
    script = bench.paths.program / "train_gpt.py"
    script.write_bytes(script.read_bytes() + b"# sneaky\n")
    with pytest.raises(InputError, match="changed after its launch"):
        stored_program(bench.paths)


def test_other_cap_does_not_share_a_study(make_bench):
    bench = make_bench()
    study = bench.study()
    check_identity(bench.session, study)
    check_identity(bench.session, bench.study())
    rules = dataclasses.replace(bench.session.rules, artifact_cap_bytes=1)
    with pytest.raises(InputError, match="other rules"):
        check_identity(dataclasses.replace(bench.session, rules=rules), bench.study())


def warmed(bench, *starts):
    block = dataclasses.replace(bench.session.spec.pgolf, warm_start=starts)
    return dataclasses.replace(
        bench.session, spec=dataclasses.replace(bench.session.spec, pgolf=block)
    )


def test_warm_start_is_proposed_first(make_bench):
    bench = make_bench()
    knobs = {"MODEL_DIM": 160, "MATRIX_LR": 0.03}
    study = bench.study()
    enqueue_warm_start(warmed(bench, WarmStart(knobs=knobs)), study, bench.folder)
    proposal = study.ask()
    assert proposal.knobs.items() >= knobs.items()
    assert proposal.proposer == "warm_start"


def test_warm_start_takes_another_studys_best_trials_within_the_space(make_bench):
    first = make_bench(name="first", run_cap=6)
    prepare(first)
    first.driver().run()
    best = ranked(first.study().records(), first.study().posteriors())
    second = make_bench(name="second", width="{values: [32, 64, 96, 128, 160, 192]}")
    study = second.study()
    start = WarmStart(study="first", top=2)
    enqueue_warm_start(warmed(second, start), study, second.paths.root.parent)
    proposals = [study.ask(), study.ask()]
    assert [p.knobs["MATRIX_LR"] for p in proposals] == [r.knobs["MATRIX_LR"] for r in best[:2]]
    assert {p.proposer for p in proposals} == {"warm_start:first"}

    narrow = make_bench(name="narrow", width="{values: [16]}")
    with pytest.raises(InputError, match="no completed trial that lies within this space"):
        enqueue_warm_start(warmed(narrow, start), narrow.study(), narrow.paths.root.parent)


def finished(make_bench, **options):
    """A study with six trials, launched as `launch` does."""
    first = make_bench(name="first", run_cap=6, method="gp", **options)
    prepare(first)
    first.driver().run()
    return first


def test_a_wider_study_takes_over_the_trials_that_lie_in_it(make_bench):
    first = finished(make_bench)
    old = {r.number: r for r in first.study().records() if r.outcome is State.COMPLETED}
    wider = make_bench(name="wider", method="gp", run_cap=4, width=WIDER)
    session = warmed(wider, WarmStart(study="first", matching=True))
    study = wider.study()
    for _ in range(2):  # a launch that dies in between begins it again
        begin_trials(session, study, wider.paths.root.parent)
    taken = [record for record in study.records() if record.taken_from]
    assert {r.taken_from: r.val_bpb for r in taken} == {
        f"first:{number}": record.val_bpb for number, record in old.items()
    }
    assert all(wider.paths.trial(record.number).result.is_file() for record in taken)
    final = wider.driver(study=study).run()
    assert final.reason == "run_cap of 4 trials reached"
    records = study.records()
    ran = [r for r in records if r.slot_seconds]
    assert len(ran) == 4, "what was taken over counts for no slot"
    known = {record.identity for record in taken}
    assert not {r.identity for r in ran} & known, "nothing runs twice"
    assert any(r.expected_bpb is not None for r in ran), "the model knows what was taken over"


def test_trials_outside_the_space_or_against_its_defaults_are_left_behind(make_bench):
    first = finished(make_bench)
    narrow = make_bench(name="narrow", width="{values: [16]}")
    session = warmed(narrow, WarmStart(study="first", matching=True))
    with pytest.raises(InputError, match="no completed trial that lies within this space"):
        begin_trials(session, narrow.study(), narrow.paths.root.parent)
    fixed = make_bench(name="fixed", rate="{value: 0.5}")
    with pytest.raises(InputError, match="no completed trial"):
        begin_trials(
            warmed(fixed, WarmStart(study="first", matching=True)),
            fixed.study(),
            first.paths.root.parent,
        )


def test_trials_under_another_program_are_the_samplers_prior(make_bench):
    first = finished(make_bench)
    other = make_bench(name="other", method="gp", run_cap=4, width=WIDER)
    session = warmed(other, WarmStart(study="first", matching=True))
    files = {"train_gpt.py": session.program.files["train_gpt.py"] + b"# better\n"}
    program = from_files("train_gpt.py", files, builtin=False)
    session = dataclasses.replace(session, program=program)
    study = other.study()
    begin_trials(session, study, other.paths.root.parent)
    assert not any(record.taken_from for record in study.records())
    completed = [r for r in first.study().records() if r.outcome is State.COMPLETED]
    assert sorted(score for _, score in study.attribute("prior")) == sorted(
        record.val_bpb for record in completed
    )
    proposers = {study.ask().proposer for _ in range(3)}
    assert "warm_start:first" in proposers, "its best are tried first"


def test_comments_and_order_are_no_change():
    assert changes("a: 1\nb: 2\n", "# why\nb: 2\na: 1\n") == set()
    assert changes("pgolf: {seed: 1}", "pgolf: {seed: 1, budget: {gpu_hours: 2}}") == {
        "pgolf.budget"
    }


def test_study_that_reached_its_cap_needs_no_cluster(make_bench):
    bench = make_bench(run_cap=3)
    assert not has_run_its_course(bench.session, bench.study())
    bench.driver(run_cap=2).run()
    assert not has_run_its_course(bench.session, bench.study())
    bench.driver().run()
    assert has_run_its_course(bench.session, bench.study())
    assert bench.driver(slots=0).run().counts["completed"] == 3


def test_study_in_a_database_without_turns_has_one_home(make_bench):
    bench = make_bench()
    study = bench.study()
    claim_storage(bench.session, study, bench.paths)
    claim_storage(bench.session, bench.study(), bench.paths)
    with pytest.raises(InputError, match="driven from another folder"):
        claim_storage(bench.session, bench.study(), StudyPaths(bench.folder / "elsewhere"))


def test_second_folder_joins_a_shared_study_only_with_the_same_sweep(make_bench, tmp_path):
    bench = make_bench(run_cap=4)
    url = f"sqlite:///{tmp_path}/study.db"
    for folder, created_at in (("a", 1.0), ("b", 2.0)):
        there = bench.elsewhere(folder)
        write_json(there.paths.origin, {"created_at": created_at})
        with closing(open_study(bench.session.spec, there.paths, storage=url, write=True)) as study:
            claim_storage(bench.session, study, there.paths)
        # W&B's ids come from it: one run a trial, whoever runs it.
        assert read_json(there.paths.origin)["created_at"] == 1.0
    longer = make_bench(run_cap=9)
    with closing(open_study(longer.session.spec, there.paths, storage=url, write=True)) as study:
        claim_storage(longer.session, study, there.paths)
        other = make_bench(run_cap=4, rate="{values: [0.01, 0.02]}")
        with pytest.raises(InputError, match="begun with another sweep file") as refused:
            claim_storage(other.session, study, there.paths)
    assert "parameters" in refused.value.got


def with_nodes(bench, **rules):
    block = dataclasses.replace(bench.session.spec.pgolf, **rules)
    spec = dataclasses.replace(bench.session.spec, pgolf=block)
    return dataclasses.replace(bench.session, spec=spec)


def test_node_is_asked_for_the_data_that_the_driver_has(make_bench, tmp_path):
    folder = tmp_path / "datasets" / "demo_sp512"
    folder.mkdir(parents=True)
    for split in ("train", "val"):
        (folder / f"fineweb_{split}_000000.bin").write_bytes(bytes(100_000))
    tokenizer = tmp_path / "demo.model"
    tokenizer.write_bytes(b"pieces")
    dataset = DataSet(name="demo_sp512", path=folder, tokenizer=tokenizer, vocab_size=512)
    session = dataclasses.replace(make_bench().session, dataset=dataset)
    order = node_comparison(session).order
    assert {path.rpartition("/")[2]: mark.whole for path, mark in order.files.items()} == {
        "demo.model": True,
        "fineweb_val_000000.bin": True,
        "fineweb_train_000000.bin": False,
    }
    asked = dataclasses.replace(order, node="here")
    assert look(asked, tmp_path).faults == ()
    (folder / "fineweb_val_000000.bin").write_bytes(bytes(99_999) + b"x")
    assert [fault.what for fault in look(asked, tmp_path).faults] == [
        "1 of 3 files of the data set differ"
    ]


def test_speed_is_measured_on_gpus_unless_the_sweep_file_says_otherwise(make_bench):
    bench = make_bench()
    assert node_comparison(with_nodes(bench)).order.speed is False
    assert node_comparison(with_nodes(bench, gpus=8)).order.speed is True
    assert node_comparison(with_nodes(bench, nodes=NodesBlock(speed="mark"))).order.speed is True
    assert node_comparison(
        with_nodes(bench, gpus=8, nodes=NodesBlock(speed="none"))
    ).order.speed is (False)
    assert node_comparison(with_nodes(bench, nodes=NodesBlock(check=False))) is None


def test_files_with_the_command_line_are_private_and_hold_no_password(make_bench, monkeypatch):
    url = "postgresql://me:p@ss/w#rd@db/sweeps"
    words = ["launch", "s.yaml", "--storage", url, f"--storage={url}", "--token=abcdefgh12345"]
    monkeypatch.setattr("sys.argv", ["pgolf-sweep", *words])
    bench = make_bench()
    prepare(bench)
    shown = bench.paths.origin.read_text()
    assert "p@ss" not in shown
    assert "w#rd" not in shown
    assert "abcdefgh12345" not in shown
    assert bench.paths.origin.stat().st_mode & 0o077 == 0
