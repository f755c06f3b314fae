"""Model and export of a script that is not ours, without a GPU or data."""
