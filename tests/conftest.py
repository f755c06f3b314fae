"""Settings of every test."""

from __future__ import annotations

import os

from hypothesis import settings

# Machines are shared: how long an example takes says nothing about it.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

# Ray gives the first cluster of a process a token and remembers that in the environment: later
# clusters of the same process would turn away the commands that tests start without one.
os.environ["RAY_AUTH_MODE"] = "disabled"
