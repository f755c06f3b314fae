"""Checks of the logs against the rules: size, clocks, seeds, script, record."""

from __future__ import annotations

import ast
import re
from datetime import date
from itertools import pairwise
from typing import TYPE_CHECKING

from pgolf_sweep.script.source import decoded, parsed
from pgolf_sweep.submission.stats import compare, same_yardstick, seeds_needed
from pgolf_sweep.verify.check import Check, CheckVerdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pgolf_sweep.config.rules import Record, Rules
    from pgolf_sweep.core.trial import LogSummary
    from pgolf_sweep.submission.folder import Folder, ShippedLog

PACKED_TOLERANCE = 0.005
"""Two packings of one text differ by less: a date or a default in it."""
_SOURCE_LINES = re.compile(r"^(?:import|from) \w+", re.MULTILINE)


def run_checks(folder: Folder, rules: Rules, run_seconds: Mapping[int, float]) -> Iterator[Check]:
    """Every rule that logs, model and script decide; `run_seconds` as for `verify`."""
    yield _artifact(folder, rules)
    yield _logged_artifact(folder.logs or folder.unscored, rules)
    train = [(log.name, _longest(log)) for log in folder.logs]
    yield _clock("train_seconds", train, rules.train_seconds, rules)
    evals = [(log.name, log.summary.eval_seconds) for log in folder.logs]
    most = {
        log.name: run_seconds[log.seed] - (_longest(log) or 0.0)
        for log in folder.logs
        if log.seed is not None and log.seed in run_seconds and log.summary.eval_seconds is None
    }
    yield _clock("eval_seconds", evals, rules.eval_seconds, rules, most)
    yield _seeds(folder, rules)
    yield _log_seeds(folder.logs)
    yield _losses(folder.logs)
    yield _evaluation(folder.logs)
    if folder.script:
        yield _code_bytes(folder)
        yield _log_source(folder)
    if rules.record is not None:
        yield _record(folder, rules, rules.record)


def _artifact(folder: Folder, rules: Rules) -> Check:
    limit = f"<= {rules.artifact_cap_bytes:,} bytes"
    if folder.model is None or not folder.script:
        return Check(
            rule="artifact",
            verdict=CheckVerdict.UNKNOWN,
            limit=limit,
            observed="no compressed model in the folder",
        )
    model_bytes = folder.model_bytes or 0
    total = len(folder.script) + model_bytes
    logged = {log.summary.model_bytes for log in folder.logs} - {None}
    if total > rules.artifact_cap_bytes:
        verdict, detail = CheckVerdict.FAIL, f"{total - rules.artifact_cap_bytes:,} bytes over"
    elif logged and model_bytes not in logged:
        verdict, detail = CheckVerdict.FAIL, f"no log says that its model has {model_bytes:,} bytes"
    else:
        verdict = CheckVerdict.PASS
        detail = f"{len(folder.script):,} of code + {model_bytes:,} of {folder.model}"
    return Check(
        rule="artifact", verdict=verdict, observed=f"{total:,} bytes", limit=limit, detail=detail
    )


def _logged_artifact(logs: Sequence[ShippedLog], rules: Rules) -> Check:
    totals = [(log.name, largest_total(log.summary)) for log in logs]
    known = [(name, total) for name, total in totals if total is not None]
    over = [f"{name}: {total:,}" for name, total in known if total > rules.artifact_cap_bytes]
    verdict = CheckVerdict.PASS if len(known) == len(totals) else CheckVerdict.UNKNOWN
    if not known:
        verdict = CheckVerdict.UNKNOWN
    return Check(
        rule="logged_artifact",
        verdict=CheckVerdict.FAIL if over else verdict,
        observed=f"{max(total for _, total in known):,} bytes" if known else "no log says it",
        limit=f"<= {rules.artifact_cap_bytes:,} bytes",
        detail="; ".join(over) or _without(totals),
    )


def largest_total(said: LogSummary) -> int | None:
    """The largest of what a log says of code and model together: a total may be too small."""
    parts = (said.code_bytes or 0) + said.model_bytes if said.model_bytes is not None else None
    known = [size for size in (said.total_bytes, parts) if size is not None]
    return max(known, default=None)


def _longest(log: ShippedLog) -> float | None:
    """Seconds of training: the latest time that any line of the training shows."""
    shown = [r.train_seconds for r in log.reports if r.train_seconds is not None]
    said = log.summary.train_seconds
    return max(([] if said is None else [said]) + shown[-1:] + _before_cap(log), default=None)


def _before_cap(log: ShippedLog) -> list[float]:
    """Times of steps, where the log holds one training."""
    steps = [r.step for r in log.reports]
    one = all(a <= b for a, b in pairwise(steps))
    return [r.train_seconds for r in log.reports if one and r.train_seconds is not None]


def _clock(
    rule: str,
    values: Sequence[tuple[str, float | None]],
    limit_seconds: float,
    rules: Rules,
    most: Mapping[str, float] | None = None,
) -> Check:
    """A time in every log; `most` bounds, by log, what a log does not say."""
    highest = limit_seconds + rules.clock_grace_seconds
    bounds = {} if most is None else most
    within = {name: value for name, value in bounds.items() if value <= highest}
    values = [(name, within.get(name) if value is None else value) for name, value in values]
    known = [(name, value) for name, value in values if value is not None]
    over = [f"{name}: {value:.1f} s" for name, value in known if value > highest]
    bounded = [f"{name}: {value:.1f} s at most, not in the log" for name, value in bounds.items()]
    verdict = CheckVerdict.PASS if known and len(known) == len(values) else CheckVerdict.UNKNOWN
    if over:
        verdict = CheckVerdict.WARN if rules.unlimited_compute else CheckVerdict.FAIL
    return Check(
        rule=rule,
        verdict=verdict,
        observed=f"{max(value for _, value in known):.1f} s" if known else "no log says it",
        limit=f"<= {limit_seconds:g} s",
        detail="; ".join(over + bounded) or _without(values),
    )


def _seeds(folder: Folder, rules: Rules) -> Check:
    seeds = [log.seed for log in folder.logs if log.seed is not None]
    unnamed = sum(log.seed is None for log in folder.logs)
    distinct = sorted(set(seeds))
    claimed = folder.manifest.get("seeds")
    listed = [str(seed) for seed in claimed] if isinstance(claimed, list | dict) else []
    verdict, detail = CheckVerdict.PASS, ""
    if len(set(listed)) < len(listed):
        verdict, detail = CheckVerdict.FAIL, "submission.json lists a seed twice"
    elif absent := [seed for seed in listed if seed not in set(map(str, distinct))]:
        verdict = CheckVerdict.UNKNOWN if unnamed else CheckVerdict.FAIL
        detail = f"no log of seed {', '.join(absent)}, which submission.json lists"
    elif len(distinct) + unnamed < rules.min_seeds:
        verdict, detail = CheckVerdict.FAIL, "too few runs"
    elif len(distinct) < rules.min_seeds:
        verdict, detail = CheckVerdict.UNKNOWN, f"{unnamed} logs do not say their seed"
    if len(distinct) < len(seeds):
        again = sorted({seed for seed in distinct if seeds.count(seed) > 1})
        detail = detail or f"several logs of seed {', '.join(map(str, again))}"
    return Check(
        rule="seeds",
        verdict=verdict,
        observed=f"{len(distinct)}: {', '.join(map(str, distinct))}" if distinct else "none named",
        limit=f">= {rules.min_seeds} distinct",
        detail=detail,
    )


def _log_seeds(logs: Sequence[ShippedLog]) -> Check:
    both = [(log.name, log.name_seed, log.summary.seed) for log in logs]
    named = [(name, a, b) for name, a, b in both if a is not None and b is not None]
    wrong = [f"{name} ran seed {inside}" for name, outside, inside in named if outside != inside]
    verdict = CheckVerdict.PASS if named else CheckVerdict.UNKNOWN
    return Check(
        rule="log_seeds",
        verdict=CheckVerdict.FAIL if wrong else verdict,
        observed=f"{len(named) - len(wrong)} of {len(both)} agree",
        limit="the seed in a log's name is the one that it ran",
        detail="; ".join(wrong),
    )


def _losses(logs: Sequence[ShippedLog]) -> Check:
    broken = [log.name for log in logs if log.summary.non_finite]
    return Check(
        rule="finite",
        verdict=CheckVerdict.WARN if broken else CheckVerdict.PASS,
        observed=f"{len(broken)} of {len(logs)} logs hold a loss that is not finite",
        limit="every loss is a number",
        detail=", ".join(broken),
    )


def _evaluation(logs: Sequence[ShippedLog]) -> Check:
    """Whether all logs end with the same kind of final score."""
    other = [log for log in logs if log.read_at is not None]
    return Check(
        rule="final_score",
        verdict=CheckVerdict.WARN if other else CheckVerdict.PASS,
        observed=f"{len(logs) - len(other)} of {len(logs)} logs",
        limit="every log ends with the same evaluation's score",
        detail="; ".join(
            f"{log.name} goes on to {log.last_bpb:.5f}, read at {log.read_at} like the others"
            for log in other
        ),
    )


def _code_bytes(folder: Folder) -> Check:
    shipped = len(folder.script)
    said = [log for log in folder.logs if log.summary.code_bytes is not None]
    wrong = [log for log in said if log.summary.code_bytes != shipped]
    verdict, detail = CheckVerdict.PASS, ""
    if not said:
        verdict, detail = CheckVerdict.UNKNOWN, "no log says it"
    elif wrong:
        named = "; ".join(f"{log.name}: {log.summary.code_bytes:,}" for log in wrong)
        sources = [_normal(folder.code), _normal(decoded(folder.script))]
        raw = [log for log in wrong if _counts_source(log, folder)]
        if len(raw) == len(wrong):
            verdict = CheckVerdict.WARN
            detail = f"{named}; {_both_totals(wrong, shipped)}"
        elif all(_shows_source(log.text) and _holds(log.text, sources) for log in wrong):
            verdict, detail = CheckVerdict.WARN, f"{named}; the same text but for blank space"
        elif folder.packed and all(_packed_alike(log, shipped) for log in wrong):
            verdict, detail = CheckVerdict.WARN, f"{named}; packed once more after the run"
        elif _packs_itself(folder.code):
            verdict = CheckVerdict.WARN
            detail = f"{named}; the script counts a packed form that it makes of itself"
        else:
            verdict, detail = CheckVerdict.FAIL, named
    return Check(
        rule="logged_code_bytes",
        verdict=verdict,
        observed=f"script of {shipped:,} bytes",
        limit="every log counts the shipped script",
        detail=detail,
    )


def _packed_alike(log: ShippedLog, shipped: int) -> bool:
    return abs((log.summary.code_bytes or 0) / shipped - 1) < PACKED_TOLERANCE


def _counts_source(log: ShippedLog, folder: Folder) -> bool:
    """Whether a log counts the text that the shipped script carries packed."""
    said = {log.summary.code_bytes, log.summary.uncompressed_code_bytes}
    return folder.packed and len(folder.code.encode()) in said


def _both_totals(logs: Sequence[ShippedLog], shipped: int) -> str:
    """The total with the code as the log counts it, and with the script that ships."""
    log = max(logs, key=lambda one: one.summary.model_bytes or 0)
    code, model = log.summary.code_bytes or 0, log.summary.model_bytes or 0
    return (
        f"with the code that the log counts {code + model:,} bytes, with the packed script that "
        f"ships {shipped + model:,}: the script that ships decides"
    )


def _packs_itself(source: str) -> bool:
    """Whether a script compresses its own text, as those do that count a packed form of it."""
    if re.search(r"python_minifier|_compress(ed)?_code|code_compress|compressed_code", source):
        return True
    try:
        tree = parsed(source)
    except SyntaxError:
        return False
    own = {"__file__", "code", "source", "getsource", "code_bytes", "source_bytes", "src"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node) in {"compress", "b85encode"}:
            words = {getattr(part, "id", getattr(part, "attr", "")) for part in ast.walk(node)}
            if words & own:
                return True
    return False


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def _log_source(folder: Folder) -> Check:
    # A packed script that prints itself prints the packed text.
    shipped = [_normal(folder.code), _normal(decoded(folder.script))]
    with_source = [log for log in folder.logs if _shows_source(log.text)]
    other = [log.name for log in with_source if not _holds(log.text, shipped)]
    verdict = CheckVerdict.PASS if with_source else CheckVerdict.UNKNOWN
    if other:
        verdict = CheckVerdict.WARN if folder.packed else CheckVerdict.FAIL
    return Check(
        rule="log_source",
        verdict=verdict,
        observed=f"{len(with_source) - len(other)} of {len(folder.logs)} logs hold the script",
        limit="the source in a log is the shipped script",
        detail=f"another source in {', '.join(other)}" if other else "",
    )


def _record(folder: Folder, rules: Rules, record: Record) -> Check:
    by_seed = {
        log.seed: (log.summary.val_bpb, log.summary.val_loss_nats)
        for log in folder.logs
        if log.summary.val_bpb is not None and log.summary.val_loss_nats is not None
    }
    pairs = [(bpb, loss) for bpb, loss in by_seed.values() if bpb is not None and loss is not None]
    limit = f"{rules.margin_nats:g} nats better than {record.val_loss_nats:.5f}, "
    limit += f"p < {rules.p_value:g}"

    def answer(verdict: CheckVerdict, observed: str, detail: str = "") -> Check:
        return Check(rule="record", verdict=verdict, observed=observed, limit=limit, detail=detail)

    if not all(same_yardstick(bpb, loss, record) for bpb, loss in pairs):
        detail = "val_bpb / val_loss differs: another tokenizer or validation set than the record's"
        return answer(CheckVerdict.UNKNOWN, "not comparable", detail)
    if len(pairs) < 2:
        return answer(CheckVerdict.UNKNOWN, f"{len(pairs)} seeds with a loss", "no p-value")
    losses = [loss for _, loss in pairs]
    result = compare(losses, record, rules.margin_nats)
    observed = f"{result.improvement_nats:+.5f} nats, p = {result.p_value:.2g}"
    detail = f"{result.method} against {record.source}"
    if result.p_value < rules.p_value:
        return answer(CheckVerdict.PASS, observed, detail)
    needed = seeds_needed(losses, record, rules.margin_nats, rules.p_value)
    if needed is not None:
        detail += f"; {needed} seeds would do if mean and spread stay"
    made = _date(folder.manifest.get("date"))
    if made and made <= date.fromisoformat(record.date):
        # What was made before a record need not beat it.
        detail += f"; made {made}, not after the record, {record.date}"
        return answer(CheckVerdict.UNKNOWN, observed, detail)
    return answer(CheckVerdict.FAIL, observed, detail)


def _shows_source(text: str) -> bool:
    return len(_SOURCE_LINES.findall(text)) > 2 or "b85decode(" in text


def _holds(text: str, sources: Sequence[str]) -> bool:
    normal = _normal(text)
    return any(source and source in normal for source in sources)


def _normal(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _date(value: object) -> date | None:
    try:
        return date.fromisoformat(str(value)[:10])
    except ValueError:
        return None


def _without(values: Sequence[tuple[str, float | None]]) -> str:
    silent = [name for name, value in values if value is None]
    return f"not in {', '.join(silent)}" if silent else ""
