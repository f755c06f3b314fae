"""Hyperparameter sweeps for Parameter Golf: a compute budget in, a valid submission out."""

__version__ = "0.1.0"
