"""Knobs read from scripts that others wrote, against a table read by people.

    python bench/records/knobs.py CHECKOUT

Counts, in every script of a checkout of openai/parameter-golf, the names that stand in quotes
right where the environment is read, and lists those that `survey` did not find; lists scripts
that it could not read at all. Exit code 1 when there are any.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

from pgolf_sweep.script.knobs.knobs import LAUNCHER_VARIABLES, survey
from pgolf_sweep.script.source import decoded
from pgolf_sweep.script.unpack import unpack

MENTION = re.compile(
    r"""(?:environ\.get\(|getenv\(|environ\[|\b_e\()\s*["'](\w+)["']|["'](\w+)["']\s+in\s+os\.environ"""
)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("checkout", type=Path)
    options = arguments.parse_args()
    scripts = packed = mentioned = missed = knobs_found = without_default = unnamed = 0
    kinds: Counter[str] = Counter()
    failures: list[str] = []
    for path in sorted(options.checkout.rglob("*.py")):
        where = path.relative_to(options.checkout)
        source = decoded(path.read_bytes())
        text = unpack(source, path=path)
        try:
            found = survey({path.name: text})
        except SyntaxError as error:
            failures.append(f"{where}: {error}")
            continue
        knobs = found.knobs
        unnamed += len(found.unnamed)
        packed += text != source
        scripts += 1
        names = {a or b for a, b in MENTION.findall(text)} - LAUNCHER_VARIABLES
        mentioned += len(names)
        lost = sorted(names - knobs.keys())
        missed += len(lost)
        if lost:
            failures.append(f"{where}: not found: {', '.join(lost)}")
        if "train_gpt" in path.name and source.strip() and not knobs:
            failures.append(f"{where}: no knobs")
        knobs_found += len(knobs)
        kinds.update(knob.kind for knob in knobs.values())
        without_default += sum(knob.default is None for knob in knobs.values())
    print(f"{scripts} scripts read, {packed} of them packed; {knobs_found} knobs {dict(kinds)}")
    print(f"{mentioned} names in quotes where the environment is read, {missed} of them not found")
    print(f"{unnamed} reads whose names only the running script knows")
    print(f"{without_default} knobs whose default is none or computed at run time")
    for failure in failures:
        print(f"    {failure}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
