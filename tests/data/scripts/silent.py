"""Prints nothing for SILENT_SECONDS and ends well, without any score."""

import os
import time

time.sleep(float(os.environ.get("SILENT_SECONDS", 0.2)))
