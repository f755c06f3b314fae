"""Trials, records, outcomes, file names, errors and the clock."""
