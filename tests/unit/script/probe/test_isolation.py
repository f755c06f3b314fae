"""What a probed script does stays within its process and folder, and what it lacks is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from support.probing import MODEL, counted, probed, program, reason

from pgolf_sweep.script.probe.prober import Probed, Prober, Unprobed, stop_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECONDS = 60
"""Until what must end has ended, on a machine that is busy."""


@pytest.fixture(scope="module", autouse=True)
def _helper_ends() -> Iterator[None]:
    yield
    stop_helper()


def until(true: Callable[[], bool]) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + SECONDS
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


def test_no_process_is_started_by_a_back_door(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    writing = f"open({str(mark)!r}, 'w')"
    head = (
        "import sys\nfrom multiprocessing import util\n"
        f"code = {writing!r}\n"
        "util.spawnv_passfds(sys.executable.encode(), [sys.executable, '-c', code], [])\n"
    )
    assert "it starts a program" in reason(head + MODEL)
    time.sleep(1)
    assert not mark.exists()


def test_datagrams_are_refused() -> None:
    head = (
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
        ".sendto(b'hello', ('127.0.0.1', 9))\n"
    )
    assert "sends to the network" in reason(head + MODEL)


def test_memory_has_a_limit() -> None:
    said = reason(
        "import resource\n"
        "raise RuntimeError(f'limit={resource.getrlimit(resource.RLIMIT_DATA)[0]};')\n"
    )
    limit = int(said.partition("limit=")[2].partition(";")[0])
    assert 0 < limit < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_standin_is_empty_when_it_is_iterated() -> None:
    head = "import absent\nassert not list(absent.ARCHS)\nassert 'sm90' not in absent.ARCHS\n"
    assert isinstance(probed(head + MODEL), Probed)


def test_base_class_from_a_missing_package_is_noted_where_the_model_has_it() -> None:
    rotary = (
        "import absent\n"
        "class Rotary(absent.Base):\n    def __init__(self, dim):\n        super().__init__(dim)\n"
        "class Unused(absent.Other):\n    pass\n"
        "class Mixed(absent.Mixin, nn.Module):\n    pass\n"
    )
    source = MODEL.replace("class GPT", rotary + "class GPT")
    assert not counted(source).incomplete
    for made in ("Rotary(dim)", "Mixed()"):
        result = counted(
            source.replace("self.matrix =", f"self.part = {made}\n        self.matrix =")
        )
        assert result.incomplete
        assert result.model_params == 256
        assert "absent." in result.notes[0]
        assert "Other" not in " ".join(result.notes)


def test_refusal_that_the_script_swallows_is_noted() -> None:
    head = (
        "import urllib.request\n"
        "try:\n    VOCAB = urllib.request.urlopen('http://127.0.0.1:9/vocab')\n"
        "except Exception:\n    VOCAB = 256\n"
    )
    result = counted(head + MODEL)
    assert result.incomplete
    assert "it downloads" in result.notes[0]


def test_nothing_is_imported_from_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.py").write_text("WIDTH = 3\n")
    monkeypatch.chdir(tmp_path)
    stop_helper()
    result = probed("import config\nassert config.WIDTH == 3, config.WIDTH\n" + MODEL)
    assert isinstance(result, Unprobed)
    assert result.stand_ins == ("config",)
    assert "stood in for: config; a NAME.py beside the script must be in pgolf.files" in (
        result.reason
    )


@pytest.mark.parametrize(
    "head",
    [
        "assert torch.cuda.is_available()\n",
        "if not torch.cuda.is_available():\n    sys.exit(1)\n",
        "if torch.cuda.device_count() < 1:\n    raise SystemExit\n",
    ],
)
def test_question_for_a_gpu_is_enough_to_be_told_of_one(head: str) -> None:
    result = counted("import sys, torch\n" + head + MODEL)
    assert "it asks for a GPU at import" in result.notes[0]


def test_failure_that_is_the_same_with_a_gpu_is_not_blamed_on_its_absence() -> None:
    head = "import torch\nif not torch.cuda.is_available():\n    pass\nraise RuntimeError('mine')\n"
    assert reason(head + MODEL) == "RuntimeError: mine"


def test_folder_is_put_back_between_probes() -> None:
    source = MODEL.replace(
        "class GPT",
        "open('seen', 'a').write('x')\nos.mkdir('logs')\nopen('parts.py', 'a').write('N += 1\\n')\n"
        "N = len(open('seen').read()) * len(open('parts.py').read())\nclass GPT",
    ).replace("nn.Linear(dim, dim", "nn.Linear(dim, N")
    prober = Prober(program(source, parts_py="N = 1\n"))
    for dim in (8, 16, 24):
        result = prober.probe({"MODEL_DIM": dim})
        assert isinstance(result, Probed), result.reason
        assert result.model_params == dim * len("N = 1\nN += 1\n")


def test_end_of_a_file_is_not_told_as_standard_input() -> None:
    head = "import io, pickle\npickle.load(io.BytesIO())\n"
    assert "Ran out of input" in reason(head + MODEL)


@pytest.mark.parametrize(
    "end",
    [
        "sys.exit(main())\n",
        "raise SystemExit(main())\n",
        "if __name__ != '__mp_main__':\n    main()\n",
    ],
)
def test_every_way_of_running_at_import_is_left_out(end: str) -> None:
    result = counted("import sys\n" + MODEL + "    raise RuntimeError('ran')\n" + end)
    assert "(main()); that was left out" in result.notes[0]


def test_definitions_under_another_name_than_main_are_kept() -> None:
    source = MODEL.replace("class GPT", "if __name__ != '__mp_main__':\n    WIDTH = 5\nclass GPT")
    assert counted(source.replace("nn.Linear(dim, dim", "nn.Linear(dim, WIDTH")).model_params == 80


PROBING = """
import sys
from pgolf_sweep.script.probe.prober import Prober
from pgolf_sweep.script.program import from_files
source = b"import os\\nA = os.environ.get('A', 1)\\nwhile True: pass\\n"
Prober(from_files("train_gpt.py", {"train_gpt.py": source}, builtin=False)).probe({})
"""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_probe_whose_asker_was_killed(
    tmp_path: Path, sent: signal.Signals
) -> None:
    def layed_out() -> bool:
        return any(tmp_path.glob("pgolf-probe-*/*/program/train_gpt.py"))

    asker = subprocess.Popen(
        [sys.executable, "-c", PROBING],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    assert until(layed_out)
    os.killpg(asker.pid, sent)
    asker.wait()
    assert until(lambda: not any(tmp_path.glob("pgolf-probe-*")))
