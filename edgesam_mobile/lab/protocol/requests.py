"""What the desktop sends: the requests of ``docs/protocol.md``, one class a ``type``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Base64Bytes, Field, model_validator

from edgesam_mobile.lab.protocol.fields import (
    LARGEST_CHUNK,
    LONGEST_JOB,
    MOST_GOLDEN,
    PROTOCOL,
    FileSize,
    JobId,
    Part,
    Positive,
    RelativePath,
    Seconds,
    Sha256,
    Share,
    StoredPath,
    Thermal,
    Whole,
)

Point = tuple[float, float]
Label = Literal[-1, 0, 1, 2, 3]


class _Request(Part):
    # Whatever speaks another version must learn so from the first request, whichever that is.
    protocol: Literal["edgesam.harness/1"] = PROTOCOL


class Put(_Request):
    """A file is to come; the answer says from which byte."""

    type: Literal["put"] = "put"
    path: StoredPath
    bytes: FileSize
    sha256: Sha256


class Chunk(_Request):
    """The next bytes of a file."""

    type: Literal["chunk"] = "chunk"
    path: StoredPath
    offset: FileSize
    data: Annotated[Base64Bytes, Field(max_length=LARGEST_CHUNK)]


class Tensor(Part):
    """An input or output, as the manifest has it."""

    name: str
    shape: tuple[Positive, ...]
    dtype: Literal["float32", "float16", "uint8", "image"]
    layout: str
    meaning: str


class GraphFile(Part):
    """An encoder or decoder: a file or a folder of the harness's, and its hash by the manifest."""

    path: RelativePath
    sha256: Sha256
    inputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]


class JobPicture(Part):
    """Side of the encoder's input, and the colour that fills it up."""

    size: Positive
    pad_rgb: tuple[float, float, float]


class JobPrompt(Part):
    """How prompts become the decoder's inputs."""

    slots: Positive
    prompts_per_call: Positive
    mask_input: bool


class JobMask(Part):
    """How the decoder's outputs become a mask."""

    low_resolution: Positive
    threshold: float
    score: Literal["iou", "stability"]
    point_masks: Literal[3, 4]


class Prompted(Part):
    """A picture and a prompt on it, in pixels of the picture."""

    image: RelativePath
    points: Annotated[tuple[Point, ...], Field(min_length=1)]
    labels: tuple[Label, ...]

    @model_validator(mode="after")
    def _as_many_labels_as_points(self) -> Self:
        if len(self.labels) != len(self.points):
            raise ValueError(f"{len(self.points)} points have {len(self.labels)} labels")
        return self


class Golden(Prompted):
    """What PyTorch answered to a prompt: the mask, and which of the four it was."""

    mask: RelativePath
    best: Annotated[int, Field(ge=0, le=3)]


class WarmUp(Part):
    """Limits, and when times are stable: the medians of the last two windows differ by less than ``tolerance``."""

    rounds: Whole
    seconds: Seconds
    window: Positive
    tolerance: Annotated[float, Field(ge=0)]


class Measure(Part):
    """How long to measure: both must be reached."""

    seconds: Seconds
    rounds: Positive


class ThermalGate(Part):
    """The hottest that may start, and the seconds to wait for it at most."""

    thermal: Thermal | None = None
    battery_c: float | None = None
    wait: Seconds


class Job(_Request):
    """One launch of one case."""

    type: Literal["job"] = "job"
    job: JobId
    label: str
    format: str
    runtime: str | None = None
    delegate: str | None = None
    threads: Positive | None = None
    encoder: GraphFile
    decoder: GraphFile
    picture: JobPicture
    prompt: JobPrompt
    mask: JobMask
    frame: Prompted
    golden: Annotated[tuple[Golden, ...], Field(max_length=MOST_GOLDEN)]
    least_iou: Share
    warm_up: WarmUp
    measure: Measure
    state_every: Annotated[float, Field(gt=0, le=LONGEST_JOB)]
    thermal_gate: ThermalGate | None = None
    seed: Whole


class Cancel(_Request):
    """The job is to end early."""

    type: Literal["cancel"] = "cancel"
    job: JobId


class Fetch(_Request):
    """What is kept of a job's events, from a ``seq`` on."""

    type: Literal["fetch"] = "fetch"
    job: JobId
    from_seq: Whole = Field(validation_alias="from", serialization_alias="from")


class Bye(_Request):
    """The session is over."""

    type: Literal["bye"] = "bye"


Request = Put | Chunk | Job | Cancel | Fetch | Bye
AnyRequest = Annotated[Request, Field(discriminator="type")]
