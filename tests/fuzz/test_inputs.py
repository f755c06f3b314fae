"""Mutated inputs of every reader: an answer or a known error, in bounded time and memory."""

from __future__ import annotations

import json
import os
import random
import resource
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.sweeps import build_bench

from pgolf_sweep.config.sweep_file import parse_spec
from pgolf_sweep.core.errors import PgolfError
from pgolf_sweep.core.kept import identity_of, kept_rows, read_result, whole_result
from pgolf_sweep.core.paths import StudyPaths, TrialPaths
from pgolf_sweep.core.secrets import masked_url, redacted, visible
from pgolf_sweep.core.trial import parsed_value
from pgolf_sweep.driver.proposals import pending
from pgolf_sweep.script.logs.stream import LogStream
from pgolf_sweep.script.program import from_files
from pgolf_sweep.search.journal import damaged_record, readable_trials, repair_journal
from pgolf_sweep.space.space import check_expression
from pgolf_sweep.workflows.study_folder import changes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "2300"))
"""Of each reader; nine of them make more than twenty thousand."""
MOST_BYTES = 500_000_000

MANY = settings(
    max_examples=EXAMPLES,
    deadline=10_000,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)

AWFUL = [
    "\0", "\x1b[2J", "\ud800", "\u202e", "9" * 400, "-1", "1e999", "nan", ".inf", "null", "~", "''",
    "[", "]", "{", "}", ": ", "- ", "&a ", "*a", "<<: ", "!!bool ", "!!int ", "!!binary ", "!!set ",
    "!!timestamp ", "? ", "| ", "> ", "%", "@", "`", "\t", "\r\n", "\n", "#", '"', "'", "\\", "../",
    "/dev/zero", "{}", "[]", "true", "off", "0x", "0b1", "1_000", "2020-01-01", "1:30", "=", ",",
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _bounded_memory() -> Any:
    """What fills the memory raises MemoryError here, which no reader may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + MOST_BYTES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def mutated(seeds: list[str]) -> st.SearchStrategy[str]:
    """A real input with a few pieces cut, doubled, moved or replaced by something awful.

    By a generator of its own: drawing each choice would cost ten times what the readers do.
    """

    def mutate(rng: random.Random) -> str:
        text = rng.choice(seeds)
        for _ in range(rng.randint(1, 6)):
            at = rng.randint(0, len(text))
            to = min(len(text), at + rng.randint(0, 40))
            other = rng.randint(0, len(text))
            piece = rng.choice(
                [
                    "",
                    text[at:to] * 2,
                    text[other : other + 30],
                    rng.choice(AWFUL),
                    rng.choice(AWFUL) * rng.choice([2, 50, 2000]),
                    chr(rng.choice([rng.randint(0, 127), rng.randint(0, 0x10FFFF)])),
                    str(rng.choice([rng.randint(-(10**20), 10**20), rng.gauss(0, 1e300)])),
                ]
            )
            text = text[:at] + piece + text[to:]
        return text

    return st.integers(0, 2**62).map(lambda seed: mutate(random.Random(seed)))


def seeds_of(*patterns: str, most: int = 3000) -> list[str]:
    return [
        path.read_text(errors="replace")[:most]
        for pattern in patterns
        for path in sorted(ROOT.glob(pattern))
    ]


SWEEPS = [
    *seeds_of("sweeps/*.yaml"),
    """method: bayes
parameters:
  A: {min: 0.1, max: 2}
  B: {values: [1, 2, x], probabilities: [0.5, 0.25, 0.25]}
  C: {distribution: q_log_normal, mu: 1, sigma: 2, q: 3}
  D: {distribution: q_uniform, min: 1, max: 64, q: 2, when: {B: x}}
early_terminate: {type: hyperband, min_iter: 3, eta: 2}
run_cap: 5
pgolf:
  require: ["A % 2 == 0"]
  warm_start: [{A: 1}]
  budget: {gpu_hours: 3}
  limits: {total_seconds: 5}
""",
    "command: [torchrun, --nproc_per_node=8, train_gpt.py]\nmetric: {name: val_bpb}\n",
]


@MANY
@given(text=mutated(SWEEPS))
def test_sweep_file(text: str) -> None:
    with suppress(PgolfError):
        spec = parse_spec(text, Path("fuzz.yaml"))
        # What is accepted can be used.
        for name, parameter in spec.space.parameters.items():
            parameter.domain.describe()
            parameter.domain.count()
            assert name
        knobs = spec.space.sample(random.Random(0))
        spec.space.violations(knobs)
        spec.space.encode(knobs)
        changes(text, text)


@MANY
@given(
    text=mutated(["MODEL_DIM % NUM_HEADS == 0", "A * 2 <= max(B, 3) and not C", "'x' in [A, B]"])
)
def test_requirement(text: str) -> None:
    with suppress(ValueError):
        check_expression(text)


@MANY
@given(text=mutated(seeds_of("tests/data/logs/*.log", most=4000)), cut=st.integers(0, 4000))
def test_log(text: str, cut: int) -> None:
    data = text.encode(errors="surrogatepass")
    stream = LogStream()
    stream.feed(data[:cut])
    stream.feed(data[cut:])
    stream.end(complete=True)
    json.dumps(stream.summary().finals)


@MANY
@given(text=mutated(seeds_of("tests/data/scripts/good.py", "tests/data/scripts/tiny_gpt.py")))
def test_script(text: str) -> None:
    with suppress(PgolfError):
        from_files("train_gpt.py", {"train_gpt.py": text.encode(errors="replace")}, builtin=False)


@pytest.fixture(scope="module")
def folder() -> Any:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def study(folder: Path) -> tuple[str, str, str]:
    """A journal, a result and a row that a real driver wrote."""
    bench = build_bench(folder, name="fuzz", run_cap=3, method="random")
    bench.driver().run()
    first = bench.paths.trial_numbers()[0]
    return (
        bench.paths.journal.read_text(),
        bench.paths.trial(first).result.read_text(),
        bench.paths.rows.read_text(),
    )


@MANY
@given(data=st.data())
def test_journal(folder: Path, study: tuple[str, str, str], data: Any) -> None:
    journal = folder / "fuzz.journal"
    text = data.draw(mutated([study[0][:4000]]))
    journal.write_bytes(text.encode(errors="surrogatepass"))
    repair_journal(journal)
    damage = damaged_record(journal)
    assert damage is None or damage[0] >= 1
    for trial in readable_trials(journal):
        json.dumps(trial.record.to_json())


@MANY
@given(data=st.data())
def test_result_and_rows(folder: Path, study: tuple[str, str, str], data: Any) -> None:
    files = TrialPaths(folder / "trial")
    files.root.mkdir(exist_ok=True)
    for old in files.root.iterdir():
        old.unlink()
    text = data.draw(mutated([part[:4000] for part in study[1:]]))
    files.result.write_bytes(text.encode(errors="surrogatepass"))
    files.spec.write_bytes(text.encode(errors="surrogatepass"))
    with suppress(PgolfError):
        read_result(files)
    identity_of(files)
    whole_result(files, lambda _: None)
    paths = StudyPaths(files.root)
    paths.rows.write_bytes(text.encode(errors="surrogatepass"))
    kept_rows(paths)


PROPOSAL = json.dumps(
    {
        "schema_version": 1,
        "id": "1",
        "by": "ada",
        "knobs": {"MATRIX_LR": 0.1, "MODEL_DIM": 64},
        "at": 1.5,
        "number": None,
        "refused": "",
    }
)


@MANY
@given(text=mutated([PROPOSAL]))
def test_proposal(folder: Path, text: str) -> None:
    paths = StudyPaths(folder / "proposing")
    paths.proposals.mkdir(parents=True, exist_ok=True)
    for old in paths.proposals.iterdir():
        old.unlink()
    (paths.proposals / "1.json").write_bytes(text.encode(errors="surrogatepass"))
    for wish in pending(paths):
        assert wish.id == "1"


@MANY
@given(text=mutated(["0.02", "true", "1e-3", "linear", "postgresql://me:pass@h/db?x=1", "a=b"]))
def test_words_of_a_command_line(text: str) -> None:
    parsed_value(text)
    masked_url(text)
    redacted(text)
    assert not set("\x1b\0\x07\x9b") & set(visible(text))


@MANY
@given(text=mutated(seeds_of("pgolf_sweep/config/rules/*.yaml")))
def test_rules(folder: Path, text: str) -> None:
    from pgolf_sweep.config.rules import load_rules

    file = folder / "rules.yaml"
    file.write_bytes(text.encode(errors="surrogatepass"))
    with suppress(PgolfError):
        load_rules("rules.yaml", base=folder)


ARGUMENTS = [
    "",
    "-",
    "--",
    "-x",
    "\x1b[2J",
    "9" * 400,
    "no/such/../place",
    "/dev/null",
    "é",
    "*",
    "a" * 5000,
]
COMMANDS = [
    ["gate", "--set", "MODEL_DIM={}"], ["gate", "--sweep", "{}"], ["plan", "{}"],
    ["status", "{}"], ["trials", "{}"], ["best", "{}", "--top", "{}"], ["logs", "--parse", "{}"],
    ["logs", "{}", "--trial", "{}"], ["stop", "{}"], ["cancel", "{}"], ["recover", "{}"],
    ["propose", "{}", "--set", "{}"], ["knobs", "{}"], ["verify", "{}"], ["report", "{}"],
    ["launch", "{}", "--storage", "{}"], ["promote", "{}"],
    ["data", "from-text", "{}", "--name", "{}"],
]  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_arguments(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real commands in this process: each ends with a code that says whose mistake it is."""
    from pgolf_sweep.cli import common

    monkeypatch.chdir(folder)
    monkeypatch.setattr(os, "environ", dict(os.environ) | {"PGOLF_DEBUG": ""})
    for argument in ARGUMENTS:
        filled = [word.replace("{}", argument) for word in words]
        monkeypatch.setattr("sys.argv", ["pgolf-sweep", *filled])
        with pytest.raises(SystemExit) as caught:
            common.main()
        assert caught.value.code in {0, 1, 2, 3, 130, None}, filled
