"""Weights: which are published, how to get them, how to read, check, split and write them.

Uses nothing of this package but its errors and file helpers. What a model's keys and shapes must be is
handed in by callers.
"""
