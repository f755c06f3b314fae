"""A Gaussian-process sampler for Optuna; numpy and scipy are all that it needs besides."""

from pgolf_sweep.search.gp.feasible import Judge, Judged
from pgolf_sweep.search.gp.observation import Fidelity, Observation, Reuse
from pgolf_sweep.search.gp.sampler import GaussianProcessSampler

__all__ = ["Fidelity", "GaussianProcessSampler", "Judge", "Judged", "Observation", "Reuse"]
