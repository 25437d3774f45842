"""The manifest of a built package: what is in it, how to call it, and what it was made from.

Written as ``manifest.json`` beside the artefacts; its JSON schema is ``docs/manifest.schema.json``.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from edgesam_mobile.errors import PackageError, UsageError
from edgesam_mobile.files import atomic_file, sha256_of, size_of

SCHEMA = "edgesam.manifest/1"
FILE_NAME = "manifest.json"
PICTURES = "pictures"  # folder of a package for masks drawn by its artefacts, STEM-ARTEFACT.png
LARGEST = 4 << 20  # bytes; a real manifest takes some tens of kilobytes
_MAKE_ONE = "make one with `edgesam-mobile build`"


def _inside(path: str) -> str:
    """Refuse paths that lead out of the package: it may come from somebody else."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or ":" in path:
        raise ValueError("a path must stay inside the package")
    if not path.isprintable():
        raise ValueError("a path must be printable")
    return path


RelativePath = Annotated[str, Field(min_length=1, max_length=240), AfterValidator(_inside)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=80)]
Positive = Annotated[int, Field(gt=0)]


class _Part(BaseModel):
    # Unknown fields pass: a later minor addition must not break an older reader. JSON has no NaN or infinity.
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class TensorSpec(_Part):
    """One input or output: what to allocate and what it means."""

    name: str
    shape: list[Positive]
    dtype: Literal["float32", "float16", "uint8", "image"]
    layout: str
    meaning: str


class FileRecord(_Part):
    """A file, or a folder such as an ``.mlpackage`` (hashed over relative names and contents)."""

    path: RelativePath
    sha256: Sha256
    bytes: Positive


class Quantisation(_Part):
    """How a graph's numbers are stored and computed.

    Attributes:
        left_out: layers left in floating point, or in ``instead``, by their names in the PyTorch graph.
        instead: precision of the layers left out; null for floating point.
        reason: why this precision, where it is not the smallest or fastest that the format has.
    """

    precision: Identifier
    weights: str
    activations: str
    left_out: list[str] = []
    instead: Identifier | None = None
    reason: str | None = None


class GraphRecord(_Part):
    """One exported graph.

    Attributes:
        op_types: count of each operation type, as the format names them.
        parameters: numbers of the plain graph, before any compression.
    """

    file: FileRecord
    inputs: list[TensorSpec] = Field(min_length=1)
    outputs: list[TensorSpec] = Field(min_length=1)
    op_types: dict[str, Positive]
    parameters: Positive
    quantisation: Quantisation | None = None


class Artifact(_Part):
    """An encoder and a decoder in one format and precision.

    Attributes:
        precision: as asked for; each graph's own stands in its ``quantisation``.
        proposals: encoder and proposal head in one, to load instead of the encoder for a box at every point.
    """

    id: Identifier
    format: Identifier
    precision: Identifier
    targets: list[Literal["ios", "android", "host"]] = Field(min_length=1)
    minimum_os: str | None = None
    encoder: GraphRecord
    decoder: GraphRecord
    proposals: GraphRecord | None = None

    def graphs(self) -> dict[str, GraphRecord]:
        """Its graphs by role, in order."""
        every = {"encoder": self.encoder, "decoder": self.decoder, "proposals": self.proposals}
        return {role: graph for role, graph in every.items() if graph is not None}


class Weights(_Part):
    """Where the weights come from and what they may be used for."""

    name: str
    sha256: Sha256
    licence: str | None
    commercial_use: bool | None
    origin: str | None
    upsample: str | None
    trained: bool


class Picture(_Part):
    """How a picture becomes the encoder's input."""

    size: Positive
    colours: Literal["RGB"] = "RGB"
    value_range: tuple[float, float] = (0.0, 255.0)
    resize: str = "longest side to `size`, both sides rounded half up, bilinear with antialiasing"
    padding: str = "right and bottom, with pad_rgb (the nearest whole numbers where the input is uint8 or an image)"
    pad_rgb: tuple[float, float, float]
    normalisation: str = "inside the encoder: pass colours 0..255"


class Prompt(_Part):
    """How prompts become the decoder's inputs."""

    slots: Positive
    prompts_per_call: Positive
    mask_input: bool
    coordinates: str = "(x, y) in pixels of the padded input; scale picture pixels by resized/original size"
    labels: dict[str, int] = {
        "foreground": 1,
        "background": 0,
        "box top-left": 2,
        "box bottom-right": 3,
        "empty slot": -1,
    }
    padding_rule: str = (
        "fill unused slots with label -1 (coordinates do not matter); "
        "SAM's padding token for prompts without a box is added inside the graph, to a mask prompt as well, so give "
        "a point or a box with a mask; mask_input is finite even where has_mask_input is 0"
    )


class Mask(_Part):
    """How the decoder's outputs become a mask."""

    low_resolution: Positive
    threshold: float = 0.0
    upscaling: str = "bilinear to `size`, crop to the resized picture, bilinear to the picture, then threshold"
    score: Literal["iou", "stability"]
    point_masks: Literal[3, 4]
    best: str = "mask 0 if there is a box, else the best-scored of the last `point_masks`"


class Prior(_Part):
    """How the proposals graph's outputs become a box for a point (arXiv 2312.06660, granularity prior)."""

    sha256: Sha256
    neighbours: Positive
    confidence: float
    rule: str = (
        "of the boxes whose score is at least `confidence`, take the `neighbours` whose centres are nearest to the "
        "point, average their corners with the scores as weights, and prompt with this box and the point; where "
        "there is no such box, with the point alone"
    )


class CalibrationRecord(_Part):
    """What ranges of activations were measured on.

    Attributes:
        source: the data set as it was named.
        views: pictures and parts of pictures; ``pictures`` are the different photographs among them.
        sha256: of all pixels and prompts.
        real: false where they were random numbers.
    """

    source: str
    pictures: Positive
    views: Positive
    prompts: Positive
    sha256: Sha256
    real: bool = True


class AccuracyRow(_Part):
    """One artefact's masks on annotated objects.

    Attributes:
        executed_by: runtime here; an interpreter where a phone has something else.
        miou: mean IoU in percent by prompt, such as ``box``, ``box+1``, ``centre``.
        boundary_iou: likewise.
        same_best: share of the first prompts for which the artefact shows the same of the four masks as PyTorch.
    """

    artifact: Identifier
    executed_by: str
    bytes: Positive
    miou: dict[str, float]
    boundary_iou: dict[str, float]
    same_best: float | None = None


class Accuracy(_Part):
    """A measured accuracy table, as ``edgesam-mobile eval --record`` puts it in.

    Attributes:
        reference: mean IoU of the PyTorch model in single precision, by prompt.
        budget: points of the first prompt's mean IoU that an artefact may lose.
    """

    data: str
    pictures: Positive
    objects: Positive
    protocol: dict[str, str]
    measured: str
    reference: dict[str, float]
    budget: float | None = None
    rows: list[AccuracyRow]


class Git(_Part):
    """State of the project's checkout at build time; absent where it was installed as a package."""

    commit: str
    dirty: bool


class Manifest(_Part):
    """Everything a package says about itself.

    Attributes:
        upsample: interpolation in the exported encoder's fuse; ``weights.upsample`` is that of the training.
    """

    schema_: Literal["edgesam.manifest/1"] = Field(default="edgesam.manifest/1", alias="schema")
    model: str
    architecture: str
    upsample: Literal["bilinear", "bicubic"] | None = None
    created: str
    code_licence: str = "Apache-2.0"
    weights: Weights
    picture: Picture
    prompt: Prompt
    mask: Mask
    prior: Prior | None = None
    calibration: CalibrationRecord | None = None
    accuracy: Accuracy | None = None
    artifacts: list[Artifact] = Field(min_length=1)
    tools: dict[str, str]
    git: Git | None = None

    @field_validator("artifacts")
    @classmethod
    def _told_apart(cls, artifacts: list[Artifact]) -> list[Artifact]:
        ids = [artifact.id for artifact in artifacts]
        if twice := next((name for name in ids if ids.count(name) > 1), None):
            raise ValueError(f"two artefacts are called {twice}")
        return artifacts

    def artifact(self, artifact_id: str) -> Artifact:
        """The artefact of that id.

        Raises:
            UsageError: no such artefact; the hint lists those there are.
        """
        for candidate in self.artifacts:
            if candidate.id == artifact_id:
                return candidate
        raise UsageError(
            f"the package has no artefact {artifact_id!r}", hint="it has " + ", ".join(a.id for a in self.artifacts)
        )

    def files(self) -> list[FileRecord]:
        """Every artefact file, in order."""
        return [graph.file for a in self.artifacts for graph in a.graphs().values()]


def read_manifest(package: Path) -> Manifest:
    """Read and validate the manifest of a package folder.

    Raises:
        PackageError: no manifest, not JSON, of a version this program does not know, or with a wrong field.
    """
    path = package / FILE_NAME
    try:
        if not package.is_dir():
            what = "not a folder" if package.exists() else "no such folder"
            raise PackageError(f"{package} is not a package: {what}", hint=_MAKE_ONE)
        if path.stat().st_size > LARGEST:
            raise PackageError(f"{path} is implausibly large for a manifest", hint="build the package again")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PackageError(f"{package} is not a package: no {FILE_NAME} in it", hint=_MAKE_ONE) from None
    except (OSError, UnicodeDecodeError) as error:
        raise PackageError(f"cannot read {path}: {_first_line(error)}", hint="build the package again") from error
    version = declared_version(text)
    if version and version != SCHEMA:
        raise PackageError(
            f"{path} is of version {_plain(version)}, this program reads {SCHEMA}", hint="update the program"
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PackageError(
            f"{path} is damaged at {_plain(place)}: {_plain(first['msg'])}", hint="build the package again"
        ) from None


def declared_version(text: str) -> str | None:
    """The schema and version that a manifest says it has, even a damaged one; ``None`` where it says none of ours."""
    found = re.search(r'"schema"\s*:\s*"(edgesam\.manifest/[^"]{1,20})"', text)
    return found[1] if found else None


def write_manifest(package: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into a package folder, atomically.

    Raises:
        StorageError: the folder cannot be written.
    """
    with atomic_file(package / FILE_NAME) as path:
        path.write_text(manifest.model_dump_json(indent=2, by_alias=True) + "\n", encoding="utf-8")


def record_file(package: Path, path: Path) -> FileRecord:
    """Hash and measure a file or folder inside a package."""
    relative = path.relative_to(package).as_posix()
    return FileRecord(path=relative, sha256=sha256_of(path), bytes=size_of(path))


def check_file(package: Path, record: FileRecord) -> Path:
    """The file's path, after hashing it again.

    Raises:
        PackageError: it is missing, cannot be read, leads out of the package or has been altered.
    """
    path = package / record.path
    try:
        if not path.resolve().is_relative_to(package.resolve()):
            raise PackageError(f"{path} leads out of the package", hint="do not use this package")
        if not (path.is_file() or path.is_dir()):
            # A pipe or a device is as good as missing: reading one might never end.
            raise PackageError(f"{path} is missing", hint="build the package again")
        digest = sha256_of(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        raise PackageError(f"cannot read {path}: {_first_line(error)}", hint="build the package again") from error
    if digest != record.sha256:
        raise PackageError(f"{path} has been altered since it was built", hint="build the package again")
    return path


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _plain(text: str) -> str:
    """Text from a file that may come from somebody else, fit for one line on a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text[:200])
