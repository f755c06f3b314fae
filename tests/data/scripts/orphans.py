"""Ends well but leaves a process behind, in a session of its own, that holds its output open."""

import subprocess
import sys

subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
print("final_int8_zlib_roundtrip_exact val_loss:2.90000000 val_bpb:1.71755400", flush=True)
