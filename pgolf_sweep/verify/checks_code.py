"""Checks of the counted script: does it compile, what does it import, does it reach out?"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from pgolf_sweep.script.source import decoded, parsed
from pgolf_sweep.submission.source import imported_modules
from pgolf_sweep.verify.check import Check, CheckVerdict
from pgolf_sweep.verify.checks_data import data_checks
from pgolf_sweep.verify.checks_reach import reach_checks, sources

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator, Sequence

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.submission.folder import Folder
    from pgolf_sweep.verify.checks_reach import Source

IMAGE_MODULES = frozenset(
    # The contest's requirements file, by module, plus what torch brings along.
    {"numpy", "tqdm", "torch", "huggingface_hub", "kernels", "setuptools", "typing_extensions"}
    | {"datasets", "tiktoken", "sentencepiece", "triton"}
)
_MODULE_OF = {"flash-attn": "flash_attn", "python-minifier": "python_minifier"}


def code_checks(folder: Folder, rules: Rules) -> Iterator[Check]:
    """Checks that need the script alone; none where there is no script."""
    if not folder.script:
        return
    try:
        tree = parsed(folder.code)
    except SyntaxError as error:
        # Newer Pythons allow more inside f-strings; the contest's image may well run it.
        newer = "f-string" in str(error.msg)
        yield Check(
            rule="code",
            verdict=CheckVerdict.UNKNOWN if newer else CheckVerdict.FAIL,
            observed=f"line {error.lineno}: {error.msg}",
            limit="compiles",
            detail=f"read by Python {sys.version_info.major}.{sys.version_info.minor}",
        )
        for rule in (
            "imports",
            "network",
            "hidden_code",
            "data",
            "outside_files",
            "seed_used",
            "uncounted_code",
        ):
            unread = "the source cannot be read"
            yield Check(rule=rule, verdict=CheckVerdict.UNKNOWN, observed=unread)
        return
    packed = "a self-extracting script; its inner source was read" if folder.packed else ""
    yield Check(
        rule="code",
        verdict=CheckVerdict.PASS,
        observed=f"{len(folder.script):,} bytes",
        limit="compiles",
        detail=packed,
    )
    yield _imports(folder, tree)
    read, unreadable = sources(folder)
    yield from reach_checks(folder, read, unreadable)
    yield from data_checks(folder, read)
    yield _uncounted(folder, read, rules)


def _imports(folder: Folder, tree: ast.Module) -> Check:
    allowed = sys.stdlib_module_names | IMAGE_MODULES | folder.modules | _required(folder)
    needed = imported_modules(tree, hard_only=True) - allowed
    optional = imported_modules(tree) - allowed - needed
    listed = folder.requirements is not None
    verdict, detail = CheckVerdict.PASS, ""
    if needed and listed:
        verdict, detail = CheckVerdict.FAIL, "not in requirements.txt"
    elif needed:
        verdict, detail = CheckVerdict.UNKNOWN, "no requirements.txt; the image may have had them"
    elif optional:
        verdict, detail = CheckVerdict.WARN, "imported where a failure is caught"
    return Check(
        rule="imports",
        verdict=verdict,
        observed=", ".join(sorted(needed or optional)) or "nothing else",
        limit="standard library, the image, requirements.txt, the folder",
        detail=detail,
    )


def _uncounted(folder: Folder, read: Sequence[Source], rules: Rules) -> Check:
    """Code that runs from beside the script, where the contest counts none."""
    shipped = decoded(folder.script)
    run = {source.name for source in read} & set(folder.siblings)
    run |= {name for name in folder.siblings if folder.packed and name in shipped}
    more = sum(folder.reader.sizes[name] for name in run)
    model = max((log.summary.model_bytes or 0 for log in folder.logs), default=0)
    total = len(folder.script) + more + model
    over = model > 0 and total > rules.artifact_cap_bytes
    verdict = CheckVerdict.WARN if run else CheckVerdict.PASS
    return Check(
        rule="uncounted_code",
        verdict=CheckVerdict.FAIL if over and more > len(folder.script) else verdict,
        observed=f"{more:,} bytes in {', '.join(sorted(run)[:4])}" if run else "none",
        limit="all code that runs is in the counted script",
        detail=f"with it {total:,} bytes{' and over the cap' if over else ''}" if run else "",
    )


def _required(folder: Folder) -> set[str]:
    """Modules that requirements.txt brings, by the usual spelling of distributions."""
    found = set()
    for line in (folder.requirements or "").splitlines():
        # Comments count too: packages outside PyPI are named there with how to get them.
        for word in re.findall(r"[A-Za-z][\w.-]*", line):
            name = word.lower().rstrip(".")
            found |= {_MODULE_OF.get(name, name.replace("-", "_"))}
    if any(name.startswith("flash_attn") for name in found) or "flashattention" in found:
        found |= {"flash_attn", "flash_attn_interface"}
    return found
