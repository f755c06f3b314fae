"""Slots on a Ray cluster."""
