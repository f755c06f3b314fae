"""Promotions whose seeds a simulated launcher runs."""

from support.promotions import bench as bench  # noqa: PLC0414 - a fixture is found by its name
