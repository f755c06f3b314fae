"""Does the counted code reach out of its folder, or hide what it does?

The script, the source that it carries packed, and the modules beside it that it imports are read;
none of it is run. Where code is made at run time the answer is that it cannot be told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pgolf_sweep.script.source import decoded, parsed
from pgolf_sweep.verify.bindings import Names
from pgolf_sweep.verify.check import Check, CheckVerdict

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator

    from pgolf_sweep.submission.folder import Folder

_MODULES = (
    "requests", "urllib3", "httpx", "aiohttp", "socket", "ftplib", "huggingface_hub", "datasets",
    "wandb", "boto3", "http.client", "urllib.request", "smtplib", "telnetlib", "paramiko",
    "xmlrpc.client", "websocket", "websockets", "gdown", "pycurl", "fsspec", "gcsfs", "s3fs",
)  # fmt: skip
_CALLS = re.compile(
    r"(?:^|\.)(?:urlopen|urlretrieve|build_opener|hf_hub_download|snapshot_download|load_dataset"
    r"|create_connection|open_connection|load_state_dict_from_url|HTTPS?Connection|ServerProxy)$"
    r"|^(?:requests|httpx|aiohttp|gdown|pycurl|paramiko|telnetlib|smtplib|ftplib|urllib3|boto3)\.\w+"
    r"|^socket\.socket\(\)\.(?:connect|connect_ex|sendto)$|^torch\.hub\.|\.from_pretrained$"
)
_RUNNERS = re.compile(
    r"^(?:subprocess\.(?:run|call|check_call|check_output|Popen|getoutput|getstatusoutput)"
    r"|os\.(?:system|popen|posix_spawnp?|spawn[lv]p?e?|exec[lv]p?e?)|pty\.spawn"
    r"|asyncio\.create_subprocess_(?:exec|shell))$"
)
_COMMANDS = re.compile(
    r"(?:^|[\s/;&|'\"(])(?:curl|wget|aria2c|rsync|scp|sftp|nc|ncat|huggingface-cli|gsutil|rclone|gdown"
    r"|git(?:\s+(?:clone|pull|fetch|lfs))?)(?:$|\s)"
    r"|\bpip3?(?:$|\s+(?:install|download)\b)|\baws\s+s3\b|\bhf\s+download\b|/dev/tcp/|https?://"
)
_EXECUTORS = frozenset({"exec", "eval", "builtins.exec", "builtins.eval"})
_MAKERS = frozenset(
    {"exec", "eval", "builtins.exec", "builtins.eval", "marshal.loads", "types.FunctionType"}
    | {"types.CodeType", "runpy.run_path", "runpy.run_module", "code.InteractiveInterpreter"}
    | {"importlib.util.spec_from_file_location", "imp.load_source"}
    | {"ctypes.CDLL", "ctypes.cdll.LoadLibrary"}
)  # fmt: skip
_BY_NAME = frozenset(
    {"__import__", "builtins.__import__", "importlib.import_module", "getattr", "builtins.getattr"}
)
_SENSITIVE = re.compile(
    r"^(?:os|sys|subprocess|builtins|__builtins__|importlib|urllib|http|socket)\b"
)
MOST_NAMED = 4


@dataclass(frozen=True, slots=True)
class Source:
    """One file that runs: its name, its text's tree and names."""

    name: str
    tree: ast.Module
    names: Names


def sources(folder: Folder) -> tuple[list[Source], list[str]]:
    """The script and every module beside it that it imports, and those that cannot be read."""
    found: list[Source] = []
    unread: list[str] = []
    waiting = [(folder.script_name or "", folder.code)]
    if folder.packed:
        waiting.append((f"{folder.script_name} as packed", decoded(folder.script)))
    by_module = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name
        for name in folder.siblings
    }
    seen: set[str] = set()
    while waiting:
        name, text = waiting.pop(0)
        try:
            tree = parsed(text)
        except SyntaxError as error:
            unread.append(f"{name}: {error.msg}")
            continue
        source = Source(name, tree, Names(tree))
        found.append(source)
        waiting += [(f"{name} line {line}", inner) for line, inner in _executed(source)]
        here = PurePosixPath(name).parent.as_posix().replace("/", ".")
        for module in source.names.modules():
            bare = module.lstrip(".")
            for dotted in (bare, bare.rpartition(".")[0], f"{here}.{bare}"):
                sibling = by_module.get(dotted)
                if sibling is not None and sibling not in seen:
                    seen.add(sibling)
                    waiting.append((sibling, folder.siblings[sibling]))
    return found, unread


def _executed(source: Source) -> Iterator[tuple[int, str]]:
    """Texts that a source gives to ``exec`` as they stand."""
    for call in source.names.calls():
        if call.args and source.names.meanings(call.func) & _EXECUTORS:
            text = source.names.text(call.args[0])
            if text is not None and "{}" not in text:
                yield call.lineno, text


def reach_checks(folder: Folder, read: list[Source], unread: list[str]) -> Iterator[Check]:
    """Whether the code downloads anything, and whether it says what it does."""
    hidden = [line for source in read for line in _hidden(source, packed=folder.packed)]
    hidden += [f"{name}, which cannot be read" for name in unread]
    yield _network(read, hidden)
    yield Check(
        rule="hidden_code",
        verdict=CheckVerdict.UNKNOWN if hidden else CheckVerdict.PASS,
        observed="; ".join(hidden[:MOST_NAMED]) or "none found",
        limit="no code that is made, or named, only when it runs",
        detail="what it does cannot be told by reading it" if hidden else "",
    )


def _network(read: list[Source], hidden: list[str]) -> Check:
    reached = sorted({line for source in read for line in _reached(source)})
    imported = {
        module
        for source in read
        for name in source.names.modules()
        for module in _MODULES
        if name == module or name.startswith(f"{module}.")
    }
    verdict, detail = CheckVerdict.PASS, ""
    if reached:
        verdict = CheckVerdict.FAIL
    elif hidden:
        verdict, detail = CheckVerdict.UNKNOWN, "cannot be told: code is made when it runs"
    elif imported:
        verdict, detail = CheckVerdict.WARN, "imported, no call found that reaches out"
    return Check(
        rule="network",
        verdict=verdict,
        observed="; ".join(reached[:MOST_NAMED]) or ", ".join(sorted(imported)) or "none found",
        limit="no network access, no download",
        detail=detail,
    )


def _reached(source: Source) -> Iterator[str]:
    for call in source.names.calls():
        meant = source.names.meanings(call.func)
        where = f"{source.name} line {call.lineno}"
        reaching = sorted(name for name in meant if _CALLS.search(name))
        if reaching:
            yield f"{where}: {reaching[0]}"
        elif any(_RUNNERS.search(name) for name in meant):
            parts = [*call.args, *(keyword.value for keyword in call.keywords)]
            texts = [text for part in parts for text in _texts(source, part)]
            command = next((text for text in texts if _COMMANDS.search(text)), None)
            if command is not None:
                yield f"{where}: runs {command[:60]!r}"


def _texts(source: Source, node: ast.expr) -> list[str]:
    whole = source.names.texts(node)
    return [*whole, " ".join(whole)]


def _hidden(source: Source, *, packed: bool) -> Iterator[str]:
    loader = packed and source.name.endswith(" as packed")
    for call in source.names.calls():
        meant = source.names.meanings(call.func)
        where = f"{source.name} line {call.lineno}"
        makers = sorted(meant & _MAKERS)
        constant = bool(call.args) and source.names.text(call.args[0]) is not None
        if (
            makers
            and not loader
            and not (constant and "{}" not in str(source.names.text(call.args[0])))
        ):
            yield f"{where}: {makers[0]}"
        named = meant & _BY_NAME
        if not named or not call.args:
            continue
        by_attribute = any(name.endswith("getattr") for name in named)
        key = call.args[1] if by_attribute and len(call.args) > 1 else call.args[0]
        if source.names.text(key) is not None:
            continue
        holders = source.names.meanings(call.args[0]) if by_attribute else frozenset({"os"})
        if any(_SENSITIVE.search(name) for name in holders):
            yield f"{where}: {min(named)} of a name that is made when it runs"
