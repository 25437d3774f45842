"""Every error this package raises on purpose, and the exit code each one ends a command with.

    EdgeSamError                 1   base class: catch this to catch all of them
    ├── UsageError               2   the call itself is wrong: option, prompt, slot count
    ├── TargetMissed             3   measured, and slower than the target allows
    ├── Inconclusive             4   what was measured cannot tell whether the target is met
    ├── EnvironmentMissing       5   a package, a tool or a version that the call needs is not here
    ├── DeviceError              6   a device is not there, refuses, or was lost on the way
    ├── VerificationFailed       7   an artefact does not reproduce the model within its limits
    ├── PictureError             8   a picture cannot be read
    ├── WeightsError             9   a checkpoint is truncated, mis-shaped or not what it says
    ├── FetchError              10   weights cannot be had from any source
    ├── PackageError            11   a built package is damaged, altered or of an unknown version
    └── StorageError            12   an output cannot be written: permission, full disk, occupied place

0 is success, 130 an interrupt (Ctrl-C), 143 an end asked for by SIGTERM, which is as clean. Each error carries one
line that says what happened and, where there is something to do about it, one line that says what.
"""

from __future__ import annotations


class EdgeSamError(Exception):
    """Something went wrong that this package foresaw.

    Args:
        message: one line that says what happened.
        hint: one line that says what to do about it, where there is something to do.
    """

    exit_code = 1
    kind = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(EdgeSamError):
    """The call itself is wrong: an option, a prompt outside the picture, more prompts than slots."""

    exit_code = 2
    kind = "usage"


class TargetMissed(EdgeSamError):
    """What was measured is slower than the target allows."""

    exit_code = 3
    kind = "missed"


class Inconclusive(EdgeSamError):
    """What was measured cannot tell whether the target is met: too few samples, too hot, or another device."""

    exit_code = 4
    kind = "inconclusive"


class EnvironmentMissing(EdgeSamError):
    """A package, a tool or a version that the call needs is not installed on this machine."""

    exit_code = 5
    kind = "environment"


class DeviceError(EdgeSamError):
    """A device is not there, refuses what it is asked, or was lost on the way."""

    exit_code = 6
    kind = "device"


class VerificationFailed(EdgeSamError):
    """An artefact was run and does not reproduce the PyTorch model within its limits."""

    exit_code = 7
    kind = "verification"


class PictureError(EdgeSamError):
    """A picture cannot be read: missing, corrupt or of a kind that has no pixels to segment."""

    exit_code = 8
    kind = "picture"


class WeightsError(EdgeSamError):
    """A checkpoint is truncated, mis-shaped, or does not belong to the architecture asked for."""

    exit_code = 9
    kind = "weights"


class FetchError(EdgeSamError):
    """Weights cannot be had: no source answers, a checksum differs, or ``--offline`` forbids asking."""

    exit_code = 10
    kind = "fetch"


class PackageError(EdgeSamError):
    """A built package is damaged: manifest unreadable, a file missing or altered, version unknown."""

    exit_code = 11
    kind = "package"


class StorageError(EdgeSamError):
    """An output cannot be written: no permission, disk full, or the place holds something else."""

    exit_code = 12
    kind = "storage"
