"""Weights: which are published, how to get them, how to read, check, split and write them.

Uses nothing of this package but its errors and file helpers. What a model's keys and shapes must be is
handed in by callers.
"""

from edgesam_mobile.weights.checkpoint import Checkpoint, Metadata, read_checkpoint, write_checkpoint
from edgesam_mobile.weights.convert import convert
from edgesam_mobile.weights.fetch import cached, fetch
from edgesam_mobile.weights.registry import REGISTRY, WeightsEntry, entry

__all__ = [
    "REGISTRY",
    "Checkpoint",
    "Metadata",
    "WeightsEntry",
    "cached",
    "convert",
    "entry",
    "fetch",
    "read_checkpoint",
    "write_checkpoint",
]
