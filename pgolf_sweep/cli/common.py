"""The parts that all commands share: application, options, output, errors to exit codes.

Results go to stdout, people's progress and hints to stderr. With ``--json`` stdout holds exactly
one JSON document.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import math
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.segment import Segment

from pgolf_sweep import __version__
from pgolf_sweep.cli.literal import LiteralTyper
from pgolf_sweep.cli.streams import open_standard_streams
from pgolf_sweep.core.errors import FaultError, InputError, InterruptedSweepError, PgolfError
from pgolf_sweep.core.secrets import redacted, visible

DEFAULT_RUNS = Path("runs")
DEFAULT_DATA = Path("data")

app = LiteralTyper(
    name="pgolf-sweep",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else there.")
]
NoProbeOption = Annotated[
    bool,
    typer.Option(
        "--no-probe",
        help="Execute nothing of a script that is not ours to predict its size; else it is "
        "imported and run here, contained by what the kernel allows.",
    ),
]
RunsOption = Annotated[
    Path,
    typer.Option("--runs", envvar="PGOLF_RUNS", help="Folder that holds the studies."),
]
DataRootOption = Annotated[
    Path,
    typer.Option("--data-root", envvar="PGOLF_DATA", help="Folder of datasets and tokenizers."),
]


def complete_study(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of studies for the shell's completion."""
    runs = Path(ctx.params.get("runs") or os.environ.get("PGOLF_RUNS") or DEFAULT_RUNS)
    names = (sweep.parent.name for sweep in runs.glob("*/sweep.yaml"))
    return sorted(name for name in names if name.startswith(incomplete))


StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A study's name, or the path of its folder.",
        autocompletion=complete_study,
    ),
]
AnyStudyArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[STUDY]",
        help="A study's name, or the path of its folder; else the one that changed last.",
        autocompletion=complete_study,
    ),
]
SweepArgument = Annotated[
    Path, typer.Argument(metavar="SWEEP.yaml", help="A sweep file; see `pgolf-sweep define`.")
]

WIDE = 200
"""Columns where the output is no terminal, so that a table in a file is not folded."""


class SafeConsole(Console):
    """A console on which no name, log or exception that is printed can steer the terminal."""

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        safe = (
            segment if segment.control else Segment(visible(segment.text), segment.style)
            for segment in buffer
        )
        return super()._render_buffer(safe)


_AT_TERMINAL = sys.stdout is not None and sys.stdout.isatty()  # None where it is closed (>&-)
out = SafeConsole(highlight=False, markup=False, emoji=False, width=None if _AT_TERMINAL else WIDE)
err = SafeConsole(stderr=True, highlight=False, markup=False, emoji=False)


def say(text: str = "", *, style: str | None = None, prose: bool = False) -> None:
    """A line for people, on stderr; brackets in it are text, not markup.

    Args:
        text: The line.
        style: Of rich.
        prose: Whether a terminal breaks it between words: not what one would copy.
    """
    err.print(text, style=style, markup=False, soft_wrap=not (prose and err.is_terminal))


def emit(document: Mapping[str, Any]) -> None:
    """The one JSON document of a ``--json`` command, on stdout."""
    sys.stdout.write(json.dumps(plain(document), indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


def plain(value: Any) -> Any:
    """Dataclasses, enums, paths and mappings as what JSON can hold; non-finite floats as null."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value


def fail(error: PgolfError) -> None:
    """Print an error as its lines on stderr, as far as anyone is there to read it."""
    headline, *rest = error.lines()
    with suppress(OSError):
        err.print("error:", style="bold red", end=" ")
        say(headline)
        for line in rest:
            say(line)


def _make_safe(record: logging.LogRecord) -> bool:
    """Have a log line on the terminal without control characters, as all else there."""
    record.msg, record.args = visible(record.getMessage()), ()
    return True


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"pgolf-sweep {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[  # noqa: ARG001 - its callback ends the program before a command is missed
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and debug logging.")
    ] = False,
) -> None:
    """Hyperparameter sweeps for Parameter Golf: a compute budget in, a valid submission out.

    Exit codes: 0 done; 1 it ran and the answer is no; 2 wrong input; 3 infrastructure failed;
    4 a fault of ours, with a file to report; 130 interrupted.

    Example: pgolf-sweep launch sweeps/demo.yaml
    """
    if debug:
        os.environ["PGOLF_DEBUG"] = "1"
    shown = logging.StreamHandler()
    # The handler's own level: a launch has its package log more, for driver.log alone.
    shown.setLevel(logging.DEBUG if debug else logging.WARNING)
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=[shown],
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(_make_safe)


def main() -> None:
    """Entry point of ``pgolf-sweep``: the one place that turns an error into an exit code."""
    open_standard_streams()
    try:
        app()
    except PgolfError as error:
        if os.environ.get("PGOLF_DEBUG"):
            raise
        fail(error)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == InterruptedSweepError.exit_code:
            say("interrupted")  # Typer turns Ctrl-C into this code without a word
        raise
    except BrokenPipeError:
        # The reader (head, less) has seen enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        # Our own mistake: another code would tell a script to retry, or that the answer is no.
        if os.environ.get("PGOLF_DEBUG"):
            raise
        known = typed(error)
        fail(known)
        sys.exit(known.exit_code)


def typed(error: Exception) -> PgolfError:
    """An error with its message and exit code, be it one of ours or one that nobody thought of."""
    return error if isinstance(error, PgolfError) else _of_a_name(error) or unforeseen(error)


def _of_a_name(error: Exception) -> InputError | None:
    """What to say of a name that no file system takes: it was given, wherever it is looked at."""
    if not isinstance(error, OSError) or error.errno not in {errno.ENAMETOOLONG, errno.ELOOP}:
        return None
    name = str(error.filename or "")
    return InputError(f"no file can be called so: {error.strerror}", got=name[:100])


def unforeseen(error: Exception) -> FaultError:
    """What to say of an error that nobody thought of; its traceback goes into a file to report."""
    package = logging.getLogger("pgolf_sweep")
    details = (type(error), error, error.__traceback__)
    record = package.makeRecord(
        package.name, logging.ERROR, __file__, 0, "unforeseen error", (), details
    )
    for handler in package.handlers:
        handler.handle(record)
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    report = _report_of(error)
    return FaultError(
        "pgolf-sweep failed in a way that it does not foresee",
        where=f"{innermost.filename}:{innermost.lineno}",
        got=redacted(f"{type(error).__name__}: {error}")[:500],
        next_step=f"please report {report}"
        if report
        else "pgolf-sweep --debug and the same command show the traceback; please report it",
    )


def _report_of(error: Exception) -> Path | None:
    """A file with what a report needs, secrets left out; None where none can be written."""
    words = " ".join(map(redacted, sys.argv[1:]))
    trace = "".join(traceback.format_exception(error, limit=-40))
    text = (
        f"pgolf-sweep {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"command: pgolf-sweep {words}\n\n{redacted(trace)}"
    )
    try:
        handle, name = tempfile.mkstemp(prefix="pgolf-sweep-fault-", suffix=".txt")
        with os.fdopen(handle, "w", errors="replace") as file:
            file.write(text)
    except OSError:
        return None
    return Path(name)
