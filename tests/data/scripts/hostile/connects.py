"""Connects to a server of this machine, by the C library, and sends datagrams."""

import ctypes
import os
import socket
import struct

libc = ctypes.CDLL(None)
port = int(os.environ["PORT"])
address = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port), socket.inet_aton("127.0.0.1"))
stream = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
libc.connect(stream, address, len(address))
libc.send(stream, b"secret", 6, 0)
datagrams = libc.socket(socket.AF_INET, socket.SOCK_DGRAM, 0)
libc.sendto(datagrams, b"secret", 6, 0, address, len(address))
path = os.environ["SOCKET"].encode()
local = struct.pack("=H108s", socket.AF_UNIX, path)
stream = libc.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0)
libc.connect(stream, local, len(local))
libc.send(stream, b"secret", 6, 0)
raise RuntimeError("the attack is over")
