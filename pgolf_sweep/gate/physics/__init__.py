"""Bytes from first principles: shapes, weight spread, entropy, codec."""
