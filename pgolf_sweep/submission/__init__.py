"""The submission's folder, its files and its statistics."""
