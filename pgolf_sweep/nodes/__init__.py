"""Nodes: checked, compared, quarantined."""
