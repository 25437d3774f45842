"""What the messages of the harness protocol are made of: limits, kinds of values, and parts that several share."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

PROTOCOL: Final = "edgesam.harness/1"
LONGEST_LINE = 1 << 20  # bytes, with the newline
LARGEST_FILE = 2 << 30  # bytes
LARGEST_CHUNK = 256 << 10  # bytes, before base64
MOST_GOLDEN = 64
LONGEST_JOB = 24 * 3600.0  # seconds

_PART = r"[A-Za-z0-9_][A-Za-z0-9._+-]*"
_SHA256 = "[0-9a-f]{64}"


def _whole(path: str) -> str:
    if any(part.endswith(".part") for part in path.split("/")):
        raise ValueError("names that end in .part are for files on their way")
    return path


# No `..`, no leading `/`, nothing hidden, nothing that a shell or a file system takes for something else.
RelativePath = Annotated[str, Field(pattern=f"^{_PART}(/{_PART})*$", max_length=200)]
# Only these two folders take files: what is kept of jobs must not be overwritten.
StoredPath = Annotated[
    str, Field(pattern=f"^(models|inputs)/{_SHA256}(/{_PART})+$", max_length=200), AfterValidator(_whole)
]
Sha256 = Annotated[str, Field(pattern=f"^{_SHA256}$")]
JobId = Annotated[str, Field(pattern="^[a-z0-9-]{1,64}$")]
Word = Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,39}$")]
Whole = Annotated[int, Field(ge=0, le=2**63 - 1)]
Positive = Annotated[int, Field(gt=0, le=2**63 - 1)]
FileSize = Annotated[int, Field(ge=0, le=LARGEST_FILE)]
Seconds = Annotated[float, Field(ge=0, le=LONGEST_JOB)]
Share = Annotated[float, Field(ge=0, le=1)]
Thermal = Literal["nominal", "fair", "serious", "critical"]


class Part(BaseModel):
    """A part of a message. Unknown fields pass; ``"5"`` is no number, and a number is finite."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False, populate_by_name=True)


class Harness(Part):
    """The program on the device. ``debugger``: one is attached, which makes times worthless."""

    name: str
    version: str
    build: Literal["release", "debug"]
    debugger: bool


class Device(Part):
    """What a device tells of itself; what it does not tell is ``None``, never a guess."""

    id: str | None = None
    class_: Literal["android", "ios", "emulator", "host", "simulated"] = Field(
        validation_alias="class", serialization_alias="class"
    )
    maker: str | None = None
    model: str | None = None
    os: str | None = None
    os_version: str | None = None
    soc: str | None = None
    cores: Positive | None = None
    memory_bytes: Positive | None = None
    abi: str | None = None


class Runtime(Part):
    """A runtime that the harness has, the formats that it loads and the delegates that can be asked for."""

    name: str
    version: str
    formats: tuple[str, ...]
    delegates: tuple[str, ...]


class Battery(Part):
    """``level`` 0 to 1, ``celsius`` of the battery."""

    level: Share | None = None
    charging: bool | None = None
    celsius: float | None = None


class Memory(Part):
    """Bytes of the harness's process, now and at most so far."""

    bytes: Whole | None = None
    peak_bytes: Whole | None = None


class MaskCheck(Part):
    """One golden prompt's mask: IoU with the expected one (0 for a wrong size), and whether the best is the same."""

    iou: Share
    best_same: bool


class WarmedUp(Part):
    """How long the warm-up was and whether the times became stable."""

    rounds: Whole
    stable: bool


class PlacedOperation(Part):
    """An operation and the processor that is to run it. ``cost``: its share of the graph's, an estimate."""

    graph: Literal["encoder", "decoder"]
    operation: str
    device: str
    cost: Share | None = None
