"""A good folder, corrupted in ways that a tired or a dishonest person would.

Each forgery is a function of a folder that promotion wrote; its name, and the rule that sees it.
"""

from __future__ import annotations

import base64
import json
import lzma
import os
import random
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from support.promotions import stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODEL = "final_model.int8.ptz"
SCRIPT = "train_gpt.py"


@dataclass(frozen=True, slots=True)
class Forgery:
    """One corruption.

    Attributes:
        name: What was done.
        rule: Which rule must object.
        verdict: What it must say.
        apply: Does it.
    """

    name: str
    rule: str
    verdict: str
    apply: Callable[[Path], None]


FORGERIES: list[Forgery] = []


def forged(rule: str, verdict: str = "fail") -> Callable[[Callable[[Path], None]], None]:
    """Registers a function as a forgery that `rule` must see."""

    def register(apply: Callable[[Path], None]) -> None:
        FORGERIES.append(Forgery(apply.__name__, rule, verdict, apply))

    return register


# -- tools ------------------------------------------------------------------------------------


def logs(folder: Path) -> list[Path]:
    return sorted(folder.glob("train_seed*.log"))


def seed_of(log: Path) -> int:
    return int(log.stem.removeprefix("train_seed"))


def rewrite(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text()
    after = change(before)
    assert after != before, f"the forgery changes nothing in {path.name}"
    path.write_text(after)


def manifest(folder: Path, **changes: Any) -> None:
    path = folder / "submission.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def claims(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "submission.json").read_text())
    return found


def scaled(text: str, name: str, factor: float) -> str:
    """A text with every number of a name times a factor."""

    def change(match: re.Match[str]) -> str:
        digits = len(match[2].partition(".")[2])
        return f"{match[1]}{float(match[2]) * factor:.{digits}f}"

    return re.sub(rf"({name}[:\"]\s*)(-?\d+\.\d+)", change, text)


def with_code(folder: Path, code: str) -> None:
    """Appends lines to the script and has the logs and the manifest count them."""
    path = folder / SCRIPT
    before = len(path.read_bytes())
    path.write_text(path.read_text() + code)
    recount(folder, before)


def recount(folder: Path, before: int) -> None:
    """Has logs and manifest say the size that the script has now."""
    grown = len((folder / SCRIPT).read_bytes()) - before
    results = {}
    for log in logs(folder):
        text = log.read_text()
        code = int(re.search(r"Code size: (\d+)", text)[1])
        total = int(re.search(r"Total submission size int8\+zlib: (\d+)", text)[1])
        text = text.replace(f"Code size: {code}", f"Code size: {code + grown}")
        log.write_text(text.replace(f"zlib: {total} bytes", f"zlib: {total + grown} bytes"))
    said = claims(folder)
    for seed, result in said["seed_results"].items():
        results[seed] = {**result, "artifact_bytes": result["artifact_bytes"] + grown}
    manifest(
        folder,
        bytes_total=said["bytes_total"] + grown,
        bytes_code=said["bytes_code"] + grown,
        seed_results=results,
    )


def new_log(folder: Path, seed: int, change: Callable[[str], str] = str) -> Path:
    """A further log of another seed, with losses of its own."""
    first = logs(folder)[0]
    text = first.read_text().replace(f"seed:{seed_of(first)}\n", f"seed:{seed}\n")
    text = re.sub(r"train_loss:(\d+\.\d+)", lambda m: f"train_loss:{float(m[1]) + 0.003:.4f}", text)
    path = folder / f"train_seed{seed}.log"
    path.write_text(change(text))
    return path


# -- scores -----------------------------------------------------------------------------------


@forged("bytes_per_token")
def every_score_is_divided_by_bytes_that_were_counted_wrongly(folder: Path) -> None:
    for log in logs(folder):
        rewrite(log, lambda text: scaled(text, "val_bpb", 1 / 1.17))
    rewrite(folder / "submission.json", lambda text: scaled(text, 'val_bpb"', 1 / 1.17))


@forged("bytes_per_token")
def a_score_is_negative(folder: Path) -> None:
    for log in logs(folder):
        rewrite(log, lambda text: re.sub(r"val_bpb:\d\.\d+", "val_bpb:-1.5", text))
    manifest(folder, val_bpb=-1.5)


@forged("bytes_per_token")
def a_score_is_zero(folder: Path) -> None:
    rewrite(logs(folder)[0], lambda text: re.sub(r"val_bpb:\d\.\d+", "val_bpb:0.0", text))


@forged("bytes_per_token")
def one_seed_is_halved_and_its_loss_is_not(folder: Path) -> None:
    rewrite(logs(folder)[0], lambda text: scaled(text, "val_bpb", 0.5))


@forged("bytes_per_token")
def the_last_score_alone_is_better_by_three_hundredths(folder: Path) -> None:
    for log in logs(folder):
        rewrite(log, lambda text: re.sub(r"(exact val_loss:\S+ val_bpb:)\S+", r"\g<1>1.16", text))


@forged("bytes_per_token")
def one_log_is_of_another_tokenizer(folder: Path) -> None:
    rewrite(logs(folder)[0], lambda text: scaled(text, "val_bpb", 2.4359 / 3.7265))


@forged("bytes_per_token")
def validation_tokens_do_not_have_these_bytes(folder: Path) -> None:
    tokens = "val_loader:shards pattern=val_*.bin tokens:62021632\n"
    for log in logs(folder):
        rewrite(
            log,
            lambda text: (
                tokens
                + scaled(text, "val_bpb", 1 / 1.08).replace("fineweb", "ours").replace("1024", "")
            ),
        )


@forged("score_drop")
def the_final_score_is_better_by_a_quarter(folder: Path) -> None:
    for log in logs(folder):
        rewrite(
            log,
            lambda text: re.sub(
                r"(exact val_loss:)\S+ (val_bpb:)\S+", r"\g<1>1.60410000 \g<2>0.95004000", text
            ),
        )


@forged("val_bpb")
def the_mean_is_of_the_wish(folder: Path) -> None:
    manifest(folder, val_bpb=claims(folder)["val_bpb"] - 0.004)


@forged("val_loss")
def the_loss_is_of_the_wish(folder: Path) -> None:
    manifest(folder, val_loss=claims(folder)["val_loss"] - 0.01)


@forged("val_bpb", "warn")
def one_seed_stands_for_the_mean(folder: Path) -> None:
    for log in logs(folder)[:1]:
        rewrite(log, lambda text: scaled(scaled(text, "val_bpb", 0.99), "val_loss", 0.99))
    best = min(
        float(re.search(r"exact val_loss:\S+ val_bpb:(\S+)", log.read_text())[1])
        for log in logs(folder)
    )
    manifest(folder, val_bpb=best)


@forged("val_bpb", "warn")
def a_true_claim_is_on_a_line_that_no_word_calls_final(folder: Path) -> None:
    for log in logs(folder):
        rewrite(log, lambda text: text + "mystery val_loss:1.8480 val_bpb:1.0945\n")
    manifest(folder, val_bpb=1.0945)


@forged("val_bpb_std")
def the_spread_is_of_the_wish(folder: Path) -> None:
    manifest(folder, val_bpb_std=0.00001)


@forged("seed_results")
def the_result_of_a_seed_is_of_the_wish(folder: Path) -> None:
    results = claims(folder)["seed_results"]
    results[next(iter(results))]["val_bpb"] -= 0.01
    manifest(folder, seed_results=results)


@forged("finite", "warn")
def a_loss_was_nan_on_the_way(folder: Path) -> None:
    rewrite(
        logs(folder)[0], lambda text: re.sub(r"train_loss:\S+", "train_loss:nan", text, count=1)
    )


# -- sizes ------------------------------------------------------------------------------------


@forged("totals_add_up")
def the_total_is_below_its_parts(folder: Path) -> None:
    for log in logs(folder):
        rewrite(log, lambda text: re.sub(r"(Total .*?: )\d+", r"\g<1>150000", text))


@forged("totals_add_up")
def the_model_alone_is_over_the_cap_and_the_total_is_innocent(folder: Path) -> None:
    rewrite(logs(folder)[0], lambda text: re.sub(r"(Serialized .*?: )\d+", r"\g<1>310000", text))


@forged("logged_artifact")
def a_part_is_over_the_cap_and_the_total_is_innocent(folder: Path) -> None:
    rewrite(logs(folder)[0], lambda text: re.sub(r"(Serialized .*?: )\d+", r"\g<1>299999", text))


@forged("logged_artifact")
def the_total_of_one_seed_is_over_the_cap(folder: Path) -> None:
    rewrite(logs(folder)[0], lambda text: re.sub(r"(Total .*?: )\d+", r"\g<1>300001", text))


@forged("bytes_total")
def the_claimed_bytes_are_of_the_wish(folder: Path) -> None:
    manifest(folder, bytes_total=150_000)


@forged("bytes_code")
def the_claimed_code_is_of_the_wish(folder: Path) -> None:
    manifest(folder, bytes_code=12)


@forged("logged_code_bytes")
def the_script_is_another_one_that_compresses_weights(folder: Path) -> None:
    path = folder / SCRIPT
    more = "import lzma\nweights = b''\nblob = lzma.compress(weights, preset=9)\n"
    path.write_text(path.read_text() + more)


@forged("logged_code_bytes", "warn")
def the_logs_count_raw_code_and_a_packed_script_ships(folder: Path) -> None:
    path = folder / SCRIPT
    text = path.read_text()
    blob = base64.b85encode(lzma.compress(text.encode())).decode()
    path.write_text(f"import lzma,base64\nexec(lzma.decompress(base64.b85decode({blob!r})))\n")


@forged("log_source")
def the_log_shows_another_source(folder: Path) -> None:
    other = "import os\nimport sys\nfrom math import pi\nx = pi\n"
    rewrite(logs(folder)[0], lambda text: other + text)


@forged("uncounted_code")
def most_of_the_code_lies_in_a_module_that_is_not_counted(folder: Path) -> None:
    (folder / "helpers.py").write_text("TABLE = '" + "ab" * 60_000 + "'\n")
    with_code(folder, "import helpers\n")


# -- runs -------------------------------------------------------------------------------------


@forged("log_copies")
def a_log_is_copied_under_another_seed(folder: Path) -> None:
    first, second = logs(folder)
    text = first.read_text().replace(f"seed:{seed_of(first)}\n", f"seed:{seed_of(second)}\n")
    second.write_text(text)


@forged("log_copies")
def a_copy_has_another_last_score(folder: Path) -> None:
    first, second = logs(folder)
    text = first.read_text().replace(f"seed:{seed_of(first)}\n", f"seed:{seed_of(second)}\n")
    second.write_text(
        re.sub(r"(exact val_loss:\S+?)\d (val_bpb:\S+?)\d\n", r"\g<1>7 \g<2>3\n", text)
    )


@forged("log_copies")
def two_seeds_score_the_same_to_the_last_digit(folder: Path) -> None:
    first, second = logs(folder)
    line = next(line for line in first.read_text().splitlines() if "_exact" in line)
    rewrite(second, lambda text: re.sub(r"final\S+_exact .*", line, text))


@forged("log_seeds")
def a_log_is_renamed_to_another_seed(folder: Path) -> None:
    logs(folder)[0].rename(folder / "train_seed4242.log")


@forged("same_configuration")
def one_log_is_of_a_larger_model(folder: Path) -> None:
    rewrite(
        logs(folder)[0], lambda text: text.replace("model_params:190000", "model_params:240000")
    )


@forged("same_configuration")
def one_log_is_of_more_layers(folder: Path) -> None:
    rewrite(logs(folder)[0], lambda text: text.replace("num_layers:11", "num_layers:14"))


@forged("clock")
def the_step_average_does_not_make_the_time(folder: Path) -> None:
    rewrite(logs(folder)[0], lambda text: text.replace("step_avg:100.00ms", "step_avg:300.00ms"))


@forged("clock")
def steps_fall(folder: Path) -> None:
    rewrite(logs(folder)[0], lambda text: text.replace("step:300/500", "step:90/500"))


@forged("clock")
def the_clock_runs_backwards(folder: Path) -> None:
    rewrite(logs(folder)[0], lambda text: text.replace("train_time:30000ms", "train_time:9000ms"))


@forged("clock")
def the_last_time_is_shorter_than_the_one_before(folder: Path) -> None:
    rewrite(logs(folder)[0], lambda text: text.replace("train_time:40000ms", "train_time:80000ms"))


@forged("train_seconds")
def a_later_phase_hides_a_long_training(folder: Path) -> None:
    def change(text: str) -> str:
        text = re.sub(
            r"train_time:(\d+)ms step_avg:\S+", lambda m: f"train_time:{int(m[1]) * 17}ms", text
        )
        return text.replace("Code size", "refit: step 600 loss=0.0174 t=56.4s\nCode size")

    rewrite(logs(folder)[0], change)


@forged("train_seconds")
def the_cap_stopped_it_late(folder: Path) -> None:
    line = "stopping_early: wallclock_cap train_time:885000ms step:500/500\n"
    rewrite(logs(folder)[0], lambda text: text.replace("Code size", line + "Code size"))


@forged("eval_seconds")
def the_evaluation_took_too_long(folder: Path) -> None:
    rewrite(logs(folder)[0], lambda text: text.replace("eval_time:4000ms", "eval_time:94000ms"))


@forged("seeds")
def a_log_is_missing(folder: Path) -> None:
    logs(folder)[0].unlink()


@forged("seeds")
def a_seed_is_listed_twice(folder: Path) -> None:
    seed = claims(folder)["seeds"][0]
    manifest(folder, seeds=[seed, seed])


# -- the artifact -----------------------------------------------------------------------------


@forged("artifact_content")
def the_model_is_noise_of_the_same_size(folder: Path) -> None:
    path = folder / MODEL
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


@forged("artifact_content")
def the_model_is_cut_off(folder: Path) -> None:
    path = folder / MODEL
    path.write_bytes(path.read_bytes()[:-40_000])


@forged("artifact_content")
def the_model_is_of_another_codec(folder: Path) -> None:
    (folder / MODEL).write_bytes(lzma.compress(random.Random(1).randbytes(150_000)))


@forged("artifact_content")
def the_model_decodes_to_another_size(folder: Path) -> None:
    (folder / MODEL).write_bytes(stored(180_000, 3))


@forged("artifact_content")
def the_model_is_a_bomb(folder: Path) -> None:
    encoder = zlib.compressobj(9)
    zeros = bytes(1 << 24)
    parts = [encoder.compress(zeros) for _ in range(40)]
    (folder / MODEL).write_bytes(b"".join(parts) + encoder.flush())


@forged("artifact")
def the_model_is_of_another_run(folder: Path) -> None:
    path = folder / MODEL
    path.write_bytes(path.read_bytes() + b"\0")


# -- data -------------------------------------------------------------------------------------


@forged("data")
def it_trains_on_the_validation_shards(folder: Path) -> None:
    with_code(folder, 'train_files = os.path.join(data_path, "fineweb_val_*.bin")\n')


@forged("data")
def it_trains_on_all_shards(folder: Path) -> None:
    with_code(folder, 'train_files = os.path.join(data_path, "fineweb_*.bin")\n')


@forged("data")
def its_training_loader_gets_the_validation_files(folder: Path) -> None:
    with_code(folder, "train_loader = open_shards(val_files)\n")


@forged("data")
def it_reads_training_files_at_evaluation(folder: Path) -> None:
    with_code(folder, "def eval_val(model):\n    return model(open_shards(train_files))\n")


@forged("data")
def the_log_says_that_it_trained_on_validation_data(folder: Path) -> None:
    line = "train_loader:files:./data/datasets/fineweb10B_sp1024/fineweb_val_000000.bin\n"
    rewrite(logs(folder)[0], lambda text: line + text)


@forged("outside_files")
def it_loads_a_model_from_outside(folder: Path) -> None:
    with_code(folder, 'start = torch.load("/home/me/pretrained.pt")\n')


@forged("outside_files")
def it_reads_beside_its_folder(folder: Path) -> None:
    with_code(folder, 'from pathlib import Path\nx = Path("../other/weights.npz").read_bytes()\n')


@forged("outside_files")
def it_opens_a_path_that_is_put_together(folder: Path) -> None:
    with_code(folder, 'base = "/opt"\nx = open(base + "/weights" + ".bin", "rb").read()\n')


@forged("seed_used")
def its_seed_is_fixed(folder: Path) -> None:
    path = folder / SCRIPT
    before = len(path.read_bytes())
    rewrite(path, lambda text: re.sub(r"random.seed\(.*\)", "random.seed(1337)", text))
    recount(folder, before)


@forged("seed_used")
def its_seed_is_fixed_by_a_name(folder: Path) -> None:
    path = folder / SCRIPT
    before = len(path.read_bytes())
    fixed = "LUCKY = 4711\nrandom.seed(LUCKY)"
    rewrite(path, lambda text: re.sub(r"random.seed\(.*\)", fixed, text))
    recount(folder, before)


# -- reaching out -----------------------------------------------------------------------------

REACHING = {
    "by_urlopen": "import urllib.request\nurllib.request.urlopen('http://a')\n",
    "by_an_alias_of_urlopen": "from urllib.request import urlopen as f\nf('http://a')\n",
    "by_a_name_for_urlopen": "import urllib.request as u\ng = u.urlopen\ng('http://a')\n",
    "by_an_alias_of_run": "from subprocess import run as go\ngo(['curl', 'http://a'])\n",
    "by_popen": "os.popen('wget http://a')\n",
    "by_getoutput": "import subprocess as s\ns.getoutput('curl http://a')\n",
    "by_http_client": "import http.client\nc = http.client.HTTPSConnection('a')\n",
    "by_dunder_import": "__import__('urllib.request').request.urlopen('http://a')\n",
    "by_import_module": "import importlib\nimportlib.import_module('requests').get('http://a')\n",
    "by_getattr": "getattr(os, 'sys' + 'tem')('wget http://a')\n",
    "by_a_command_in_a_name": (
        "cmd = ['git', 'clone', 'x']\nimport subprocess\nsubprocess.call(cmd)\n"
    ),
    "by_a_joined_command": "os.system(' '.join(['curl', 'http://a']))\n",
    "by_pip": "import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'pip', 'install'])\n",
    "by_a_socket": "import socket\nsocket.create_connection(('a', 80))\n",
    "by_a_connected_socket": "import socket\ns = socket.socket()\ns.connect(('a', 80))\n",
    "by_hub": "torch.hub.load('a/b', 'c')\n",
    "by_partial": (
        "import functools, urllib.request as u\nfunctools.partial(u.urlopen)('http://a')\n"
    ),
    "by_sys_modules": (
        "import sys, urllib.request\nsys.modules['urllib.request'].urlopen('http://a')\n"
    ),
    "in_a_text_that_is_executed": "exec(\"import urllib.request as u; u.urlopen('http://a')\")\n",
    "by_bash": "import subprocess\nsubprocess.run(['bash', '-c', 'cat < /dev/tcp/1.2.3.4/80'])\n",
    "by_execvp": "os.execvp('curl', ['curl', 'http://a'])\n",
}


def _reaching(name: str, code: str) -> None:
    FORGERIES.append(
        Forgery(f"it_downloads_{name}", "network", "fail", lambda folder: with_code(folder, code))
    )


for _name, _code in REACHING.items():
    _reaching(_name, _code)


@forged("network")
def a_module_beside_it_downloads(folder: Path) -> None:
    (folder / "helpers.py").write_text("import urllib.request as u\nu.urlopen('http://a')\n")
    with_code(folder, "import helpers\n")


@forged("network")
def a_module_of_a_module_downloads(folder: Path) -> None:
    (folder / "one.py").write_text("from two import x\n")
    (folder / "two.py").write_text("import os\nx = os.popen('curl http://a')\n")
    with_code(folder, "import one\n")


@forged("network")
def a_packed_script_downloads(folder: Path) -> None:
    path = folder / SCRIPT
    text = path.read_text() + "import urllib.request\nurllib.request.urlopen('http://a')\n"
    blob = base64.b85encode(lzma.compress(text.encode())).decode()
    path.write_text(f"import lzma,base64\nexec(lzma.decompress(base64.b85decode({blob!r})))\n")


HIDING = {
    "by_a_decoded_text": "import base64\nexec(base64.b64decode(os.environ['X']))\n",
    "by_marshal": "import marshal\nmarshal.loads(open('x', 'rb').read())\n",
    "by_a_name_from_outside": "getattr(os, os.environ['X'])('y')\n",
    "by_an_import_of_any_name": "__import__(os.environ['X'])\n",
    "by_eval": "eval(os.environ['X'])\n",
    "by_ctypes": "import ctypes\nctypes.CDLL(os.environ['X'])\n",
    "by_runpy": "import runpy\nrunpy.run_path(os.environ['X'])\n",
}


def _hiding(name: str, code: str) -> None:
    FORGERIES.extend(
        Forgery(f"it_hides_code_{name}", rule, "unknown", lambda f: with_code(f, code))
        for rule in ("network", "hidden_code")
    )


for _name, _code in HIDING.items():
    _hiding(_name, _code)


@forged("imports")
def it_needs_a_package_that_is_not_listed(folder: Path) -> None:
    with_code(folder, "import mamba_ssm\n")


@forged("code")
def it_is_no_python(folder: Path) -> None:
    (folder / SCRIPT).write_text("def f(:\n")


# -- evidence ---------------------------------------------------------------------------------


@forged("evidence")
def a_seed_that_crashed_is_left_out(folder: Path) -> None:
    new_log(
        folder,
        777,
        lambda text: text.partition("Code size")[0] + "Traceback (most recent call last):\n",
    )


@forged("evidence")
def a_seed_that_did_worse_is_left_out(folder: Path) -> None:
    new_log(folder, 778, lambda text: scaled(scaled(text, "val_bpb", 1.01), "val_loss", 1.01))


@forged("evidence")
def the_readme_tells_of_a_seed_that_diverged(folder: Path) -> None:
    rewrite(folder / "README.md", lambda text: text + "\nSeed 4242 diverged and was left out.\n")


@forged("evidence")
def the_readme_has_a_row_that_no_log_has(folder: Path) -> None:
    row = "| 4242 | 1.31000000 | 2.21 | 200,000 | 500 |\n"
    rewrite(folder / "README.md", lambda text: text.replace("| **mean**", f"{row}| **mean**"))


@forged("evidence")
def the_manifest_tells_of_excluded_seeds(folder: Path) -> None:
    manifest(folder, excluded_seeds=[4242])


@forged("evidence")
def the_manifest_has_a_seed_that_failed(folder: Path) -> None:
    results = {**claims(folder)["seed_results"], "4242": {"status": "crashed: NaN"}}
    manifest(folder, seed_results=results)


@forged("evidence")
def the_manifest_has_a_result_that_is_not_counted(folder: Path) -> None:
    results = {**claims(folder)["seed_results"], "4242": {"val_bpb": 1.3, "val_loss": 2.2}}
    manifest(folder, seed_results=results)


# -- files that no honest folder has ----------------------------------------------------------


@forged("readable")
def a_log_is_a_pipe(folder: Path) -> None:
    path = logs(folder)[0]
    path.unlink()
    os.mkfifo(path)


@forged("readable")
def a_log_is_a_link_out_of_the_folder(folder: Path) -> None:
    path = logs(folder)[0]
    outside = folder.parent / "elsewhere.log"
    path.rename(outside)
    path.symlink_to(outside)


@forged("readable")
def the_model_is_a_sparse_file_of_ten_gigabytes(folder: Path) -> None:
    os.truncate(folder / MODEL, 10_000_000_000)


@forged("readable")
def a_log_is_a_sparse_file_of_ten_gigabytes(folder: Path) -> None:
    os.truncate(logs(folder)[0], 10_000_000_000)


@forged("submission_json")
def the_manifest_is_nested_without_end(folder: Path) -> None:
    (folder / "submission.json").write_text("[" * 200_000)


@forged("submission_json")
def the_manifest_has_a_number_without_end(folder: Path) -> None:
    manifest(folder, val_bpb="x")
    rewrite(folder / "submission.json", lambda text: text.replace('"x"', "9" * 4000))


@forged("code")
def the_script_is_a_sum_of_two_hundred_thousand_terms(folder: Path) -> None:
    (folder / SCRIPT).write_text("x = " + "+".join(["1"] * 200_000) + "\n")


@forged("files")
def the_readme_is_empty(folder: Path) -> None:
    (folder / "README.md").write_text("")
