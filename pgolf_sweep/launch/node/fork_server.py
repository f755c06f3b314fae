"""Fork server: an interpreter with torch imported, from which guards and their scripts are forked.

A program of its own, run as a file; the other end is `pgolf_sweep.launch.node.forking`. Importing
torch is nearly all that a small trial's start costs. A guard forked from here runs a Python script
in a fork of its own instead of a new interpreter, which then finds torch imported.

Each message on the socket carries a guard's three descriptors (control, status, output) and its
heartbeat in seconds; the answer is the guard's process id. The guard becomes a child of the worker,
which is a subreaper. End of file ends this process.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pgolf_sweep.launch.node import guard
else:
    import guard  # beside this file: run as a program, it needs no package

IMPORTED = ("torch", "torch.nn.functional", "torch.distributed", "numpy")
MARKER = "PGOLF_RUN"


def serve(connection: socket.socket) -> None:
    """Fork a guard for each message, until there are no more."""
    while True:
        words, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
        if not words:
            return
        (heartbeat_seconds,) = struct.unpack("d", words)
        reader, writer = os.pipe()
        between = os.fork()
        if between == 0:
            parent = os.getpid()
            if (child := os.fork()) == 0:
                os.close(reader)
                os.close(writer)
                connection.close()
                be_guard(descriptors, heartbeat_seconds, between=parent)
            os.write(writer, struct.pack("i", child))
            os._exit(0)
        os.close(writer)
        os.waitpid(between, 0)
        connection.send(os.read(reader, 4))
        os.close(reader)
        for descriptor in descriptors:
            os.close(descriptor)


def be_guard(descriptors: list[int], heartbeat_seconds: float, *, between: int) -> None:
    """Run a guard once the process in between is gone and the worker the parent."""
    code = 1
    try:
        while os.getppid() == between:
            time.sleep(0.0005)
        os.setsid()
        control, status, output = descriptors
        null = os.open(os.devnull, os.O_RDWR)
        for copy, fd in ((null, 0), (output, 1), (output, 2)):
            os.dup2(copy, fd)
        os.close(null)
        os.close(output)
        guard.Guard(control, status, heartbeat_seconds, in_fork=run_script).run()
        code = 0
    except BaseException:  # noqa: BLE001 - a fork never goes on in the server's code
        traceback.print_exc()
    finally:
        os._exit(code)


def run_script(argv: list[str], env: dict[str, str]) -> None:
    """Be the process of ``[python, "-u", script, *words]``; never returns.

    The working folder is the script's already. What a new interpreter does at its end is done:
    threads are waited for, exit functions run, buffers are written.
    """
    show_marker(env.get(MARKER, ""))
    os.environ.clear()
    os.environ.update(env)
    sys.argv = argv[2:]
    sys.path[0] = os.getcwd()  # noqa: PTH109 - as an interpreter puts it
    script = os.path.join(sys.path[0], argv[2])  # noqa: PTH118 - likewise
    for name in ("guard", "__main__"):
        sys.modules.pop(name)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # forks would draw the same; `random` sees to itself
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=script, __builtins__=__builtins__, __cached__=None)
    sys.modules["__main__"] = main
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 0
    try:
        with open(script, "rb") as file:  # noqa: PTH123 - as named
            source = file.read()
        exec(compile(source, script, "exec"), main.__dict__)  # noqa: S102 - the trial
    except SystemExit as end:
        code = exit_code_of(end)
    except BaseException as error:  # noqa: BLE001 - as an interpreter reports it
        if error.__traceback__ and error.__traceback__.tb_next:
            error = error.with_traceback(error.__traceback__.tb_next)
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - waits for threads
        atexit._run_exitfuncs()  # noqa: SLF001 - as an interpreter does
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)


def exit_code_of(end: SystemExit) -> int:
    """What an interpreter exits with."""
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code & 0xFF
    print(end.code, file=sys.stderr)
    return 1


def show_marker(value: str) -> None:
    """Put a run's marker where ``/proc/PID/environ`` shows it: a fork keeps the server's."""
    place = _MARKER_ADDRESS
    if place:
        ctypes.memset(place, 0, _MARKER_BYTES)
        data = value.encode()[:_MARKER_BYTES]
        ctypes.memmove(place, data, len(data))


_getenv = ctypes.CDLL(None).getenv
_getenv.restype = ctypes.c_void_p
_MARKER_ADDRESS: int | None = _getenv(MARKER.encode())
_MARKER_BYTES = len(os.environ.get(MARKER, ""))


if __name__ == "__main__":
    os.environ.pop(MARKER, None)
    server = socket.socket(fileno=int(sys.argv[1]))
    for module in IMPORTED:
        try:
            __import__(module)
        except ImportError:
            sys.exit(1)  # the worker goes on without
    server.send(b"ready")
    serve(server)
