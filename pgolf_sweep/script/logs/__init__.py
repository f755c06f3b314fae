"""Scores, sizes and times from the lines that a script prints."""
