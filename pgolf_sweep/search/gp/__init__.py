"""A Gaussian-process sampler for Optuna; numpy and scipy are all that it needs besides."""

from pgolf_sweep.search.gp.feasible import Judge, Judged
from pgolf_sweep.search.gp.sampler import GaussianProcessSampler, Observation, Reuse

__all__ = ["GaussianProcessSampler", "Judge", "Judged", "Observation", "Reuse"]
