"""Downloads at import, from where nothing answers, as scripts do that fetch their data."""

import os
import urllib.request

ITERATIONS = int(os.environ.get("ITERATIONS", 20))

urllib.request.urlopen("http://127.0.0.1:9/tokenizer.model", timeout=2)
print("final_int8_zlib_roundtrip_exact val_loss:2.90000000 val_bpb:1.71755400", flush=True)
