"""The scripts that trials run: the knobs they read, the log lines they print, our own bundle."""
