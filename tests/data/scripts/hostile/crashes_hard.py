"""Dies of a bad address, past Python."""

import ctypes

ctypes.string_at(8)
