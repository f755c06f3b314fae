"""``python -m pgolf_sweep``: the command line, where its script is not on the path."""

from pgolf_sweep.cli import main

if __name__ == "__main__":
    main()
