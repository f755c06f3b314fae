"""``python -m pgolf_sweep``: the command line, where its script is not on the path."""

import os
import sys
from pathlib import Path

import pgolf_sweep

if __name__ == "__main__":
    # Python put the folder of the command first: a wandb.py there is none of this program's.
    here = Path.cwd()
    if sys.path and sys.path[0] in {"", os.fspath(here)}:
        home = Path(pgolf_sweep.__file__).parents[1]
        sys.path[0:1] = [os.fspath(home)] if home == here else []

    from pgolf_sweep.cli import main

    main()
