"""What each rule of `verify` asks, how it is measured, and where it comes from.

A check cannot be made without its rule's entry here (`pgolf_sweep.verify.check.Check`).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from pgolf_sweep.core.errors import InputError

_ACCEPTED = "contest README, Submission Process: what a pull request's folder holds"
_SIZE = "contest README, FAQ: what counts toward the 16 MB artifact"
_EVALUATION = "contest README, FAQ: restrictions on evaluation"
_PACKAGES = "contest README, FAQ: importing other packages"
_RECORDS = "contest README, Submission Process: conditions of a new record"
_ARITHMETIC = "arithmetic: numbers of one run are tied to each other"
_MEASURED = "measured on the contest's merged records (docs/measurements/verify.md)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One rule in words.

    Attributes:
        asks: What a folder must do.
        measured: From which files and numbers the verdict comes, with tolerances.
        source: The rule's text, or the arithmetic or measurement behind it.
    """

    asks: str
    measured: str
    source: str


def _rule(asks: str, measured: str, source: str) -> Explanation:
    return Explanation(asks=asks, measured=measured, source=source)


RULES: dict[str, Explanation] = {
    "files": _rule(
        "README.md, submission.json, train_gpt.py and a train log a seed.",
        "The folder is listed; other names for the JSON file and the script are a warning.",
        _ACCEPTED,
    ),
    "readable": _rule(
        "Regular files of a submission's size.",
        "Links, pipes, devices and files above a bound are named, not opened. Fails where a log, "
        "a script, submission.json, README.md or the model is among them.",
        "safety of the reader: a folder from a stranger must not hang or fill the machine",
    ),
    "submission_json": _rule(
        "A JSON object with author, github_id, name, date and val_bpb.",
        "Fails without name or val_bpb, or where a number is none; other gaps are a warning.",
        _ACCEPTED,
    ),
    "code": _rule(
        "The counted script compiles.",
        "It is parsed, after unpacking where it carries its source packed; nothing is run.",
        "contest README, Submission Process: the script must compile and run in the folder",
    ),
    "imports": _rule(
        "Imports come from the standard library, the contest's image, requirements.txt or the "
        "folder.",
        "Top-level imports that no `try` catches; caught ones are a warning. Without "
        "requirements.txt a foreign import cannot be decided.",
        _PACKAGES,
    ),
    "network": _rule(
        "No download and no network call.",
        "Calls are followed through aliases, `getattr` and modules beside the script; commands "
        "that a call runs are read. An import alone is a warning.",
        _SIZE,
    ),
    "hidden_code": _rule(
        "No code that is made, or named, only when it runs.",
        "`exec`, `eval`, `__import__` and `getattr` of values that the source does not hold. "
        "Cannot fail: what such code does cannot be told.",
        "a reader can judge only what it can read",
    ),
    "uncounted_code": _rule(
        "All code that runs is in the counted script.",
        "Modules beside the script that it imports or runs. Fails where they are larger than the "
        "script and code plus model with them exceed the cap; else a warning.",
        _SIZE,
    ),
    "data": _rule(
        "Training reads the training shards alone; evaluation reads none of them.",
        "Names and patterns of shards in the source, by the variable or function that takes them, "
        "and the loader lines of the logs.",
        _EVALUATION,
    ),
    "outside_files": _rule(
        "The code opens files of its folder and of the data set alone.",
        "Paths that calls to open, load and glob hold as text: absolute, of a home folder or "
        "upward; caches, the data set and the run's own scratch files are let pass.",
        _SIZE,
    ),
    "seed_used": _rule(
        "The seed of a run comes from outside the script.",
        "Arguments of `manual_seed` and its like are followed to a constant or to the "
        "environment. A constant fails where the logs claim several seeds.",
        "runs of one seed are no evidence for others",
    ),
    "artifact": _rule(
        "The script and the compressed model in the folder fit the cap together.",
        "Their sizes on disk against `artifact_cap_bytes`; a log must state the model's size. "
        "Unknown without a model.",
        _SIZE,
    ),
    "logged_artifact": _rule(
        "Every log's total fits the cap.",
        "The larger of the total that a log prints and its code plus its model.",
        _SIZE,
    ),
    "totals_add_up": _rule(
        "A log's total is its code plus its model.",
        "Fails where the total is below the sum, or the sum or the model alone exceeds the cap; "
        "a total above the sum is a warning.",
        _ARITHMETIC,
    ),
    "artifact_content": _rule(
        "The model file is what the logs' codec makes.",
        "It is decompressed by each known codec, within a bound on memory and never unpickled; "
        "codec and decoded size are compared with the logs, and with one bit a parameter.",
        _ARITHMETIC,
    ),
    "bytes_per_token": _rule(
        "val_loss / (val_bpb ln 2) is the tokenizer's, in every line of every log.",
        "Within 1 % in one log (a warning; 2 % fails), 0.2 % between logs, 0.5 % of the constant "
        "of the tokenizer that the log names. A score of zero or less fails.",
        f"bits per byte are nats per token over ln 2 and bytes per token; constants {_MEASURED}",
    ),
    "score_drop": _rule(
        "No evaluation makes a score better by more than evaluations can.",
        "The final val_bpb against the one before quantization: 0.08 better is a warning, "
        "0.2 fails.",
        f"the largest legal gain is 0.03 bpb, {_MEASURED}",
    ),
    "clock": _rule(
        "Steps and times of a training only rise, and agree with the step average.",
        "Lines of the training in order; step average x steps against the printed time within "
        "6 % and 2 s; the stated end against the last line within 3 % and 2 s.",
        _ARITHMETIC,
    ),
    "log_copies": _rule(
        "Each seed has a run of its own.",
        "Losses of each pair of logs at the steps that both show, after step 1; final scores to "
        "the last digit.",
        "two seeds do not share a loss curve",
    ),
    "same_configuration": _rule(
        "The runs differ in their seed alone.",
        "Parameter count, layers, width, heads, vocabulary and batch as each log prints them.",
        "the claimed mean is of one model",
    ),
    "evidence": _rule(
        "Every seed that ran is counted, also one that crashed or did worse.",
        "Seeds of logs without a score, of submission.json and of README.md's tables and "
        "sentences, against those that the claimed mean counts.",
        "a p-value over chosen runs is none",
    ),
    "train_seconds": _rule(
        "Training ends within the rules' time.",
        "The latest time of any line of the training, with the preset's grace.",
        "contest README: training in under 10 minutes on 8xH100",
    ),
    "eval_seconds": _rule(
        "Evaluation ends within the rules' time.",
        "The evaluation times that the logs print, with the preset's grace.",
        _EVALUATION,
    ),
    "seeds": _rule(
        "Enough runs of distinct seeds.",
        "Seeds by the logs' content, else their names, against `min_seeds` and the seeds that "
        "submission.json lists.",
        _RECORDS,
    ),
    "log_seeds": _rule(
        "The seed in a log's name is the one that it ran.",
        "The name's number against the seed that the log prints.",
        _ARITHMETIC,
    ),
    "final_score": _rule(
        "Every log ends with the same evaluation's score.",
        "Labels of the last scores; where one log goes on to another evaluation, it is read at "
        "the label of the others, with a warning.",
        "the claimed mean is of one evaluation",
    ),
    "finite": _rule(
        "Every loss is a number.",
        "Lines with nan or inf. A warning: a run may recover.",
        "a loss that is not finite is a fault of training that a reviewer wants to see",
    ),
    "logged_code_bytes": _rule(
        "Every log counts the script that ships.",
        "The log's code bytes against the script's size. A warning where the difference is blank "
        "space or packing; the detail gives both totals, and the script that ships decides.",
        _SIZE,
    ),
    "log_source": _rule(
        "The source that a log prints is the script that ships.",
        "Its text, but for trailing blanks. Unknown where no log prints source; a warning for "
        "packed scripts.",
        "the log is the proof of the script",
    ),
    "val_bpb": _rule(
        "submission.json's val_bpb is the mean over the logs.",
        "To as many digits as it has, 0.0005 at most. A warning where it is one log's score, or a "
        "score on a line that is not taken for final.",
        _ARITHMETIC,
    ),
    "val_loss": _rule(
        "submission.json's val_loss is the mean over the logs.",
        "As val_bpb.",
        _ARITHMETIC,
    ),
    "val_bpb_std": _rule(
        "submission.json's val_bpb_std is the sample's standard deviation (ddof 1).",
        "Over the logs, within its digits or 2 %; the population's (ddof 0) is a warning.",
        _ARITHMETIC,
    ),
    "seed_results": _rule(
        "Each seed's numbers in submission.json are its log's.",
        "val_bpb, val_loss, artifact_bytes and steps by seed, to as many digits as each has; a "
        "difference in steps alone is a warning.",
        _ARITHMETIC,
    ),
    "bytes_total": _rule(
        "submission.json's bytes_total is the largest total of the logs.",
        "Exactly; the mean, another log's total or more than any is a warning.",
        _ARITHMETIC,
    ),
    "bytes_code": _rule(
        "submission.json's bytes_code is the script's size.",
        "Exactly; the number that the logs say is a warning.",
        _ARITHMETIC,
    ),
    "record": _rule(
        "Better than the record by the rules' margin, with their p-value.",
        "One-sided test of the seeds' val_loss against the record's seeds, or its mean where it "
        "has none. Unknown on another tokenizer, or where the folder is not newer than the record.",
        _RECORDS,
    ),
    "rerun_artifact": _rule(
        "The script gives a log's score from the model that ships (`--rerun`).",
        "The script is asked by a variable that it reads, as START_AT or EVAL_ONLY; val_bpb within "
        "0.0005. Unknown where no model ships or no such variable is read.",
        "contest README: the artifact is what is evaluated",
    ),
    "rerun": _rule(
        "The script gives its log's score once more (`--rerun`).",
        "val_bpb within four standard deviations of seeds, the model within the cap.",
        "contest README: organisers verify top submissions by running them",
    ),
}


def explain(rule: str) -> Explanation:
    """A rule in words.

    Raises:
        InputError: There is no such rule.
    """
    found = RULES.get(rule)
    if found is None:
        near = difflib.get_close_matches(rule, RULES, n=1)
        raise InputError(
            "no such rule",
            where="--explain",
            got=rule,
            expected=", ".join(RULES),
            next_step=f"pgolf-sweep verify --explain {near[0]}" if near else None,
        )
    return found
