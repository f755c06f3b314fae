"""A Gaussian-process sampler for Optuna; numpy and scipy are all that it needs besides."""

from pgolf_sweep.search.gp.feasible import Judge, Judged
from pgolf_sweep.search.gp.sampler import Fidelity, GaussianProcessSampler, Observation, Reuse

__all__ = ["Fidelity", "GaussianProcessSampler", "Judge", "Judged", "Observation", "Reuse"]
