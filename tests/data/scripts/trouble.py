"""Runs the stand-in that TROUBLE names in its own place, so that one sweep meets every trouble."""

import os
import runpy
from pathlib import Path

TROUBLE = os.environ.get("TROUBLE", "good")
CHATTY_BYTES = int(os.environ.get("CHATTY_BYTES", 50_000_000))
SILENT_SECONDS = float(os.environ.get("SILENT_SECONDS", 0.2))
ITERATIONS = int(os.environ.get("ITERATIONS", 20))

runpy.run_path(str(Path(__file__).with_name(f"{TROUBLE}.py")), run_name="__main__")
