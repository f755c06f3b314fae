from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.core.errors import PromotionError
from pgolf_sweep.launch.inline import InlineLauncher
from pgolf_sweep.script.unpack import unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.promotions import Bench

    from pgolf_sweep.launch.base import Job
    from pgolf_sweep.launch.inline import Finish

LONG = "".join(f"word_{i} = 'a sentence that says little'\n" for i in range(40)).encode()


@pytest.fixture
def packing(bench: Bench) -> Bench:
    """A bench whose script is long enough to pack and whose proof runs are told apart."""
    bench.script += LONG
    return bench


def test_packed_submission_runs_and_ships_the_packed_script(packing: Bench) -> None:
    said: list[str] = []
    done = packing.promote(packing.plan(pack=True), report=said.append)
    script = (done.folder / "train_gpt.py").read_bytes()
    readable = (done.folder / "readable" / "train_gpt.py").read_text()
    assert done.pack is not None
    assert len(script) == len(done.pack.script) < done.pack.before_bytes == len(readable.encode())
    assert 'get("NUM_LAYERS", 11)' in readable
    assert "11" in unpack(script.decode())
    assert done.verification.ok
    assert any(f"{done.pack.freed_bytes:,} bytes freed" in line for line in said)
    manifest = json.loads((done.folder / "submission.json").read_text())
    assert manifest["bytes_code"] == len(script)
    assert "torch==" in (done.folder / "requirements.txt").read_text()
    assert "bit for bit" in (done.folder / "README.md").read_text()


def test_proof_goes_by_the_searchs_seed_and_is_kept(packing: Bench) -> None:
    packing.promote(packing.plan(pack=True))
    proofs = [seed for seed, _ in packing.started if seed == 1337]
    assert len(proofs) == 2
    packing.promote(packing.plan(pack=True))
    assert len([seed for seed, _ in packing.started if seed == 1337]) == 2


def test_pack_that_changes_the_artifact_is_refused(packing: Bench) -> None:
    planned = packing.plan(pack=True)

    def simulate(job: Job) -> Iterator[tuple[float, Finish]]:
        code = job.files["train_gpt.py"]
        good = packing.finish(1337, len(code))
        model = b"a" if code == planned.plain else b"b"
        yield 1.0, replace(good, files={**good.files, "final_model.int8.ptz": model})

    packing.launch = lambda: InlineLauncher(1, simulate, packing.clock)
    with pytest.raises(PromotionError) as caught:
        packing.promote(planned)
    assert "the pack is refused" in str(caught.value)
    assert json.loads((planned.root / "pack" / "proof.json").read_text())["identical"] is False
    assert not list(planned.root.glob("seed-*"))


def test_script_that_does_not_repeat_itself_shows_nothing(packing: Bench) -> None:
    planned = packing.plan(pack=True)
    count = iter(range(9))

    def simulate(job: Job) -> Iterator[tuple[float, Finish]]:
        good = packing.finish(1337, 1)
        model = bytes([next(count)])
        yield 1.0, replace(good, files={**good.files, "final_model.int8.ptz": model})

    packing.launch = lambda: InlineLauncher(1, simulate, packing.clock)
    with pytest.raises(PromotionError, match="two runs of the plain script differ"):
        packing.promote(planned)


def test_script_that_came_packed_is_opened_for_its_defaults(packing: Bench) -> None:
    packing.script = packing.plan(pack=True).script
    planned = packing.plan()
    assert planned.plain is not None
    assert b"0.02" in planned.plain
    assert packing.promote(planned).verification.ok
