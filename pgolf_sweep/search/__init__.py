"""Optuna's study, sampler and pruner, and the locks of a study's storage."""
