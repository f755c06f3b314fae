"""Whole commands: launch, promote, detach, doctor."""
