"""edgesam-mobile: take promptable segmentation (SAM) onto phones, and measure what arrives there.

Importing this package is cheap: names that need torch are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgesam_mobile.errors import (
    DeviceError,
    EdgeSamError,
    EnvironmentMissing,
    FetchError,
    Inconclusive,
    PackageError,
    PictureError,
    StorageError,
    TargetMissed,
    UsageError,
    VerificationFailed,
    WeightsError,
)

if TYPE_CHECKING:
    from edgesam_mobile.model import Sam, SamPredictor, load_model

__version__ = "0.1.0"

__all__ = [
    "DeviceError",
    "EdgeSamError",
    "EnvironmentMissing",
    "FetchError",
    "Inconclusive",
    "PackageError",
    "PictureError",
    "Sam",
    "SamPredictor",
    "StorageError",
    "TargetMissed",
    "UsageError",
    "VerificationFailed",
    "WeightsError",
    "__version__",
    "load_model",
]

_LAZY = {"Sam", "SamPredictor", "load_model"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module("edgesam_mobile.model"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
