"""Launchers of trials: one protocol, in-process with a simulated clock or on a Ray cluster."""
