"""Numbers of a log that arithmetic ties to each other: bytes a token, totals, clocks, curves."""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from statistics import median
from typing import TYPE_CHECKING

from pgolf_sweep.core.yardstick import VALIDATION_BYTES, bytes_per_token, known_for, nearest
from pgolf_sweep.verify.check import Check, CheckVerdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.submission.folder import Folder, ShippedLog

SAME_TEXT = 0.01
"""Relative spread of bytes a token in one log: parts of the validation set differ by so much."""
PART_OF_TEXT = 0.08
"""The same for validations between steps, which may be of a few thousand tokens only: 3 % was seen
on 16,384 tokens of the demo's text."""
BETWEEN_LOGS = 0.002
LARGEST_DROP_BPB = 0.2
"""No legal evaluation of the contest's records gains more over the score before it than 0.03."""
ODD_DROP_BPB = 0.08
CLOCK_TOLERANCE = 0.03
CLOCK_SLACK_SECONDS = 2.0
LEAST_SHARED_STEPS = 3
MOST_NAMED = 4

_TOKENIZER = re.compile(r"tokenizer_path\s*[:=]\s*(\S+)|fineweb10B_(\w+)/")
_VAL_TOKENS = re.compile(
    r"val_loader[^\n]{0,200}\btokens\s*[:=]\s*(\d{6,12})\b|\bval_tokens\s*[:=]\s*(\d{6,12})\b"
)
_SHAPE = re.compile(
    r"\b(num_layers|n_layer|model_dim|n_embd|num_heads|num_kv_heads|mlp_mult|vocab_size|train_seq_len"
    r"|train_batch_tokens)\s*[:=]\s*(\d+(?:\.\d+)?)\b"
)


def physics_checks(folder: Folder, rules: Rules) -> Iterator[Check]:
    """Every rule that compares numbers of the logs with each other."""
    logs = folder.logs or folder.unscored
    yield _bytes_per_token(folder)
    yield _totals(logs, rules)
    yield _clock(logs)
    yield _drop(folder.logs)
    yield _copies([*folder.logs, *folder.unscored])
    yield _configuration(folder)


def _answer(
    rule: str, wrong: Sequence[str], odd: Sequence[str], observed: str, limit: str
) -> Check:
    verdict = CheckVerdict.WARN if odd else CheckVerdict.PASS
    return Check(
        rule=rule,
        verdict=CheckVerdict.FAIL if wrong else verdict,
        observed=observed,
        limit=limit,
        detail="; ".join([*wrong, *odd][:MOST_NAMED]),
    )


def _ratios(log: ShippedLog) -> tuple[list[float], list[float]]:
    """Bytes a token by the final scores, and by those on the way."""
    said = log.summary
    finals = [
        bytes_per_token(said.final_losses_nats.get(label), bpb)
        for label, bpb in said.finals.items()
    ]
    finals.append(bytes_per_token(said.val_loss_nats, said.val_bpb))
    steps = [bytes_per_token(report.val_loss_nats, report.val_bpb) for report in log.reports]
    steps.append(bytes_per_token(said.val_loss_nats_prequant, said.val_bpb_prequant))
    return [r for r in finals if r is not None], [r for r in steps if r is not None]


def _bytes_per_token(folder: Folder) -> Check:
    limit = "val_loss / (val_bpb ln 2) is that of the tokenizer, in every line"
    wrong: list[str] = []
    odd: list[str] = []
    by_group: dict[tuple[str, str], list[tuple[str, float]]] = {}
    shown: list[float] = []
    named: set[str] = set()
    for log in (*folder.logs, *folder.unscored):
        said = log.summary
        scores = [said.val_bpb, *said.finals.values(), *(r.val_bpb for r in log.reports)]
        if any(score is not None and score <= 0 for score in scores):
            wrong.append(f"{log.name}: a val_bpb of zero or less")
        finals, steps = _ratios(log)
        if not finals:
            continue
        middle = finals[-1]
        shown.append(middle)
        apart = [r for r in finals if abs(r / middle - 1) > SAME_TEXT]
        # A validation between steps may be of a part of the text, whose tokens differ in length.
        apart += [r for r in steps if abs(r / middle - 1) > PART_OF_TEXT]
        # A fifth decimal of a loss of 0.1 is worth little; a log of one digit says nothing.
        if apart:
            lines = f"{apart[0]:.4f} and {middle:.4f} in one log"
            (wrong if abs(apart[0] / middle - 1) > 2 * SAME_TEXT else odd).append(
                f"{log.name}: {lines}"
            )
        tokenizer = _tokenizer(log)
        by_group.setdefault((log.name.rpartition("/")[0], tokenizer), []).append((log.name, middle))
        wrong += _against_known(log, middle, tokenizer)
        if (found := nearest(middle)) is not None:
            named.add(found[0])
    for members in by_group.values():
        middle = median(value for _, value in members)
        wrong += [
            f"{name}: {value:.4f}, the others {middle:.4f}"
            for name, value in members
            if abs(value / middle - 1) > BETWEEN_LOGS
        ]
    claimed = _claimed(folder)
    if claimed is not None and shown and min(abs(claimed / r - 1) for r in shown) > SAME_TEXT:
        odd.append(f"submission.json: {claimed:.4f}, the logs {shown[0]:.4f}")
    observed = f"{min(shown):.4f} to {max(shown):.4f}" if shown else "no log gives loss and bpb"
    check = _answer("bytes_per_token", wrong, odd, observed + _of(named), limit)
    if check.verdict is CheckVerdict.PASS and not named:
        detail = "of no known tokenizer" if shown else ""
        return Check(
            rule=check.rule, verdict=CheckVerdict.UNKNOWN, observed=observed, limit=limit,
            detail=detail,
        )  # fmt: skip
    return check


def _of(named: set[str]) -> str:
    return f", of {', '.join(sorted(named))}" if named else ""


def _against_known(log: ShippedLog, found: float, tokenizer: str) -> Iterator[str]:
    """A log's number against its tokenizer's, and against the validation set's own bytes."""
    known = nearest(found)
    expected = known_for(tokenizer)
    if expected is not None and known is None:
        yield f"{log.name}: {found:.4f}, but {tokenizer[-40:]} has {expected:.4f}"
    elif expected is not None and known is not None and known[1] != expected:
        other = f"{log.name}: {found:.4f} is {known[0]}'s, but {tokenizer[-40:]} has {expected:.4f}"
        if known[0] != "sp8192 CaseOps":  # its data lie under the name of sp8192
            yield other
    tokens = _val_tokens(log)
    if known is None and tokens is not None:
        counted = tokens * found
        if (
            0.8 < counted / VALIDATION_BYTES < 1.25
            and abs(counted / VALIDATION_BYTES - 1) > SAME_TEXT
        ):
            yield (
                f"{log.name}: {tokens:,} validation tokens of {found:.4f} bytes are "
                f"{counted:,.0f} bytes, the validation set has {VALIDATION_BYTES:,}"
            )


def _tokenizer(log: ShippedLog) -> str:
    # Source and its defaults come first: what the run printed of itself is last.
    found = [next(g for g in match if g) for match in _TOKENIZER.findall(log.text)]
    plain = [text for text in found if "{" not in text and "(" not in text]
    if not plain:
        return ""
    return plain[-1] if "fineweb" in plain[-1] else f"fineweb {plain[-1]}"


def _val_tokens(log: ShippedLog) -> int | None:
    found = [next(g for g in match if g) for match in _VAL_TOKENS.findall(log.text)]
    return int(found[-1]) if found else None


def _claimed(folder: Folder) -> float | None:
    numbers = [folder.manifest.get(key) for key in ("val_loss", "val_bpb")]
    if not all(isinstance(n, float) for n in numbers):
        return None
    return bytes_per_token(*map(float, numbers))  # type: ignore[arg-type]


def _totals(logs: Sequence[ShippedLog], rules: Rules) -> Check:
    """The total of a log is the sum of its parts, and the largest sum fits."""
    cap = rules.artifact_cap_bytes
    wrong: list[str] = []
    odd: list[str] = []
    largest = 0
    for log in logs:
        said = log.summary
        code, model, total = said.code_bytes or 0, said.model_bytes or 0, said.total_bytes
        largest = max(largest, code + model, total or 0)
        if model > cap:
            wrong.append(f"{log.name}: the model alone has {model:,} bytes")
        elif code + model > cap:
            wrong.append(f"{log.name}: code and model have {code + model:,} bytes")
        if said.model_bytes is None or total is None:
            continue
        if total < code + model:
            wrong.append(f"{log.name}: total {total:,}, but {code:,} + {model:,} of code and model")
        elif total > code + model and code and said.uncompressed_code_bytes is None:
            odd.append(f"{log.name}: total {total:,}, more than {code + model:,} of code and model")
    return _answer(
        "totals_add_up",
        wrong,
        odd,
        f"at most {largest:,} bytes derived" if largest else "no log says it",
        f"total = code + model, the largest within {cap:,} bytes",
    )


def _clock(logs: Sequence[ShippedLog]) -> Check:
    """Steps, times and step averages of a training agree, and none runs backwards."""
    wrong = [f"{log.name}: {line}" for log in logs for line in _clock_of(log)]
    return _answer(
        "clock",
        wrong,
        [],
        f"{sum(bool(log.reports) for log in logs)} of {len(logs)} logs show steps",
        "steps and times only rise; step average x steps = training time",
    )


def _clock_of(log: ShippedLog) -> Iterator[str]:
    timed = [r for r in log.reports if r.train_seconds is not None]
    for before, after in pairwise(timed):
        seconds, then = before.train_seconds or 0.0, after.train_seconds or 0.0
        if after.step < before.step and after.step > 1:
            yield f"step {after.step} after step {before.step}"
            return
        if after.step >= before.step and then + CLOCK_SLACK_SECONDS < seconds * (
            1 - CLOCK_TOLERANCE
        ):
            yield f"{then:.1f} s at step {after.step}, {seconds:.1f} s at step {before.step}"
            return
    averages = [r for r in timed if r.step_avg_ms is not None and r.step > 20]
    for report in averages[-1:] + averages[len(averages) // 2 : len(averages) // 2 + 1]:
        product = (report.step_avg_ms or 0.0) * report.step / 1000
        seconds = report.train_seconds or 0.0
        if abs(product - seconds) > CLOCK_SLACK_SECONDS + 2 * CLOCK_TOLERANCE * max(
            product, seconds
        ):
            yield (
                f"step {report.step} x {report.step_avg_ms:.2f} ms is {product:.1f} s, "
                f"the log says {seconds:.1f} s"
            )
            return
    said = log.summary
    last = max((r.train_seconds or 0.0 for r in timed), default=0.0)
    if said.train_seconds is not None and said.train_seconds + CLOCK_SLACK_SECONDS < last * 0.97:
        yield f"training ends at {said.train_seconds:.1f} s, a step is at {last:.1f} s"


def _drop(logs: Sequence[ShippedLog]) -> Check:
    """No evaluation makes a score better by more than evaluations do."""
    wrong: list[str] = []
    odd: list[str] = []
    for log in logs:
        said = log.summary
        before = said.val_bpb_prequant
        if said.val_bpb is None or before is None:
            continue
        gain = before - said.val_bpb
        line = f"{log.name}: {said.val_bpb:.5f} after {before:.5f}"
        if gain > LARGEST_DROP_BPB * max(1.0, before / 2):
            wrong.append(line)
        elif gain > ODD_DROP_BPB:
            odd.append(line)
    return _answer(
        "score_drop", wrong, odd, "final scores against those before them",
        f"less than {LARGEST_DROP_BPB} bpb better",
    )  # fmt: skip


def _copies(logs: Sequence[ShippedLog]) -> Check:
    """Two seeds have no two losses in common, let alone all."""
    wrong = []
    for one, other in combinations(logs, 2):
        if one.text == other.text and one.name_seed == other.name_seed:
            continue
        losses = _losses(one)
        shared = losses.keys() & _losses(other).keys()
        equal = sum(losses[key] == _losses(other)[key] for key in shared)
        if len(shared) >= LEAST_SHARED_STEPS and equal == len(shared) and one.seed != other.seed:
            wrong.append(f"{one.name} and {other.name}: the same losses at {equal} steps")
        elif (
            one.seed != other.seed
            and one.summary.val_bpb is not None
            and _long(one.summary.val_bpb)
            and one.summary.val_bpb == other.summary.val_bpb
            and one.summary.val_loss_nats == other.summary.val_loss_nats
        ):
            wrong.append(f"{one.name} and {other.name}: the same score to the last digit")
    return _answer(
        "log_copies", wrong, [], f"{len(logs)} logs compared", "each seed has a run of its own"
    )


def _long(score: float) -> bool:
    return len(f"{score:.10f}".rstrip("0").partition(".")[2]) > 6


def _losses(log: ShippedLog) -> dict[tuple[int, str], float]:
    found = {}
    for r in log.reports:
        # Before the first update all seeds of some scripts are alike.
        if r.step > 1 and r.train_loss_nats is not None:
            found[r.step, "train"] = r.train_loss_nats
        if r.step > 1 and r.val_loss_nats is not None:
            found[r.step, "val"] = r.val_loss_nats
    return found


def _configuration(folder: Folder) -> Check:
    """All logs that stand for the score are of one configuration."""
    wrong: list[str] = []
    odd: list[str] = []
    groups: dict[str, list[ShippedLog]] = {}
    for log in folder.logs:
        groups.setdefault(log.name.rpartition("/")[0], []).append(log)
    claimed = folder.manifest.get("seeds")
    claimed = {str(s) for s in claimed} if isinstance(claimed, list) else set()
    results = folder.manifest.get("seed_results")
    claimed |= set(map(str, results)) if isinstance(results, dict) else set()
    for where, logs in groups.items():
        stands = where == "" or len(groups) == 1
        for key in ("params", "shape"):
            values = [
                (log, _shape(log) if key == "shape" else log.summary.model_params) for log in logs
            ]
            known = [(log, value) for log, value in values if value]
            if len(known) < 2 or all(value == known[0][1] for _, value in known):
                continue
            counts = [sum(v == value for _, v in known) for _, value in known]
            usual = known[counts.index(max(counts))][1]
            for log, value in known:
                if value != usual:
                    line = f"{log.name}: {_difference(value, usual)}"
                    counted = str(log.seed) in claimed or (not claimed and len(known) <= 6)
                    (wrong if stands and counted and log.name_seed is not None else odd).append(
                        line
                    )
    return _answer(
        "same_configuration", wrong, odd, f"{len(folder.logs)} logs",
        "the runs differ in their seed alone",
    )  # fmt: skip


def _shape(log: ShippedLog) -> frozenset[tuple[str, str]]:
    """Sizes that the run prints of itself, beyond its source."""
    lines = [line for line in log.text.splitlines() if len(line) < 400 and "(" not in line]
    found: dict[str, str] = {}
    for line in lines:
        for name, value in _SHAPE.findall(line):
            found.setdefault(name, value)
    return frozenset(found.items())


def _difference(value: object, usual: object) -> str:
    if isinstance(value, frozenset) and isinstance(usual, frozenset):
        names = {name for name, _ in value ^ usual}
        mine, theirs = dict(value), dict(usual)
        told = [f"{n} {mine.get(n, '?')}, the others {theirs.get(n, '?')}" for n in sorted(names)]
        return ", ".join(told[:3])
    return f"{value:,} parameters, the others {usual:,}"
