"""Checks of the counted script: does it compile, what does it import, does it reach out?"""

from __future__ import annotations

import ast
import re
import sys
from typing import TYPE_CHECKING

from pgolf_sweep.submission.source import imported_modules, parsed
from pgolf_sweep.verify.check import Check, CheckVerdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgolf_sweep.submission.folder import Folder

IMAGE_MODULES = frozenset(
    # The contest's requirements file, by module, plus what torch brings along.
    {"numpy", "tqdm", "torch", "huggingface_hub", "kernels", "setuptools", "typing_extensions"}
    | {"datasets", "tiktoken", "sentencepiece", "triton"}
)
_MODULE_OF = {"flash-attn": "flash_attn", "python-minifier": "python_minifier"}
_REACHING_MODULES = frozenset(
    {"requests", "urllib3", "httpx", "aiohttp", "socket", "ftplib", "huggingface_hub"}
    | {"datasets", "wandb", "boto3"}
)
_REACHING_CALLS = re.compile(
    r"(^|\.)(urlopen|urlretrieve|hf_hub_download|snapshot_download|load_dataset|create_connection"
    r"|load_state_dict_from_url)$|^requests\.(get|post|head)$|^torch\.hub\.|from_pretrained$"
)
_REACHING_COMMANDS = re.compile(r"^(curl|wget|pip3?|git)$|\b(curl|wget)\s|\bpip3? install\b")


def code_checks(folder: Folder) -> Iterator[Check]:
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
        for rule in ("imports", "network"):
            unread = "the source could not be read"
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
    yield _imports(folder)
    yield _network(tree, folder.code)


def _imports(folder: Folder) -> Check:
    allowed = sys.stdlib_module_names | IMAGE_MODULES | folder.modules | _required(folder)
    needed = imported_modules(folder.code, hard_only=True) - allowed
    optional = imported_modules(folder.code) - allowed - needed
    listed = (folder.root / "requirements.txt").is_file()
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


def _required(folder: Folder) -> set[str]:
    """Modules that requirements.txt brings, by the usual spelling of distributions."""
    path = folder.root / "requirements.txt"
    if not path.is_file():
        return set()
    found = set()
    for line in path.read_text(errors="replace").splitlines():
        # Comments count too: packages outside PyPI are named there with how to get them.
        for word in re.findall(r"[A-Za-z][\w.-]*", line):
            name = word.lower().rstrip(".")
            found |= {_MODULE_OF.get(name, name.replace("-", "_"))}
    if any(name.startswith("flash_attn") for name in found) or "flashattention" in found:
        found |= {"flash_attn", "flash_attn_interface"}
    return found


def _network(tree: ast.Module, source: str) -> Check:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    reached = {
        f"line {call.lineno}: {name}"
        for call in calls
        if _REACHING_CALLS.search(name := ast.unparse(call.func)) or _runs_downloader(call, name)
    }
    modules = imported_modules(source) & _REACHING_MODULES
    verdict = CheckVerdict.PASS
    if reached or modules:
        verdict = CheckVerdict.FAIL if reached else CheckVerdict.WARN
    return Check(
        rule="network",
        verdict=verdict,
        observed="; ".join(sorted(reached)[:3]) or ", ".join(sorted(modules)) or "none found",
        limit="no network access, no download",
        detail="" if reached or not modules else "imported, no call found that reaches out",
    )


def _runs_downloader(call: ast.Call, name: str) -> bool:
    if not re.match(r"(subprocess|os)\.(run|call|check_call|check_output|Popen|system)$", name):
        return False
    texts = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant)]
    return any(isinstance(text, str) and _REACHING_COMMANDS.search(text) for text in texts)
