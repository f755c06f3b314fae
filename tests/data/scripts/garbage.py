"""Prints bytes that are no text, and a line without an end, before a final score."""

import random
import sys

out = sys.stdout.buffer
out.write(random.Random(0).randbytes(200_000).replace(b"\n", b""))
out.write(b"\n\x00\xff\xfe step:\xe2\x82 val_bpb:\n")
out.write(b"final_int8_zlib_roundtrip_exact val_loss:2.90000000 val_bpb:1.71755400")
out.flush()
