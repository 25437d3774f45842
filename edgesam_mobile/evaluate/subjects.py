"""What accuracy is measured of: PyTorch models and artefacts of a package, behind one way of asking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from edgesam_mobile.model.choice import best_mask, stability_score
from edgesam_mobile.model.geometry import ResizeLongestSide
from edgesam_mobile.model.predictor import SamPredictor, Score
from edgesam_mobile.model.registry import architecture
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.runtime.predictor import ArtifactPredictor
from edgesam_mobile.runtime.session import Arithmetic, runtime_of

# Cells of the embedding decoded together. A processor's caches hold four prompts at an input of 1024 pixels
# (16 at once take 1.8 times as long a prompt); an accelerator wants more.
_CPU_CELLS, _CUDA_CELLS = 4 * 64 * 64, 64 * 64 * 64

Floats = NDArray[np.floating[Any]]


def _none() -> Floats:
    return np.zeros((0, 2))


@dataclass(frozen=True)
class Prompt:
    """One prompt, in pixels of the picture.

    Attributes:
        box: (x1, y1, x2, y2), or None.
        points: N x 2, (x, y).
        labels: N; 1 is foreground, 0 is background.
    """

    box: Floats | None = None
    points: Floats = field(default_factory=_none)
    labels: tuple[int, ...] = ()

    def with_point(self, point: tuple[float, float], label: int) -> Prompt:
        return Prompt(self.box, np.concatenate([self.points, [point]]), (*self.labels, label))


class Answers(NamedTuple):
    """To P prompts.

    Attributes:
        logits: P x s x s of one mask a prompt: of the first mask token, or of the one to show.
        shown: P; which of the four masks is the one to show.
    """

    logits: NDArray[np.float32]
    shown: NDArray[np.int64]


class Subject(Protocol):
    """A model that answers prompts on a picture.

    Attributes:
        name: to tell it from others in tables and files.
        identity: what its answers depend on, such as hashes of its files; JSON.
        transform: between pixels of a picture and the model's frame.
    """

    name: str
    identity: dict[str, Any]
    transform: ResizeLongestSide

    def set_image(self, image: NDArray[np.uint8]) -> None:
        """Embed a picture: RGB, H x W x 3."""
        ...

    def answer(self, prompts: Sequence[Prompt], *, best: bool) -> Answers:
        """One mask a prompt: of the first mask token, or (``best``) of the one to show."""
        ...


class TorchSubject:
    """A PyTorch model, on whatever device it is; prompts with equally many points are decoded together.

    Args:
        score: chooses the mask to show, ``iou`` or ``stability``; the architecture's own if ``None``.
    """

    def __init__(self, model: Sam, name: str = "pytorch", *, score: Score | None = None) -> None:
        self.name = name
        self.predictor = SamPredictor(model, score=score)
        self.transform = self.predictor.transform
        said = model.provenance
        self.identity = {
            "architecture": model.architecture,
            "weights": said.weights_name if said else None,
            "sha256": said.weights_sha256 if said else None,
            "upsample": said.upsample if said else None,
            "input_size": model.image_size,
            "score": self.predictor.score,
        }

    def set_image(self, image: NDArray[np.uint8]) -> None:
        self.predictor.set_image(image)

    def answer(self, prompts: Sequence[Prompt], *, best: bool) -> Answers:
        side = self.predictor.model.image_size // 4
        answers = Answers(np.empty((len(prompts), side, side), np.float32), np.empty(len(prompts), np.int64))
        cells = _CPU_CELLS if self.predictor.model.device.type == "cpu" else _CUDA_CELLS
        for chunk in _alike(prompts, max(1, cells // (side // 4) ** 2)):
            answers.logits[chunk], answers.shown[chunk] = self._decode([prompts[number] for number in chunk], best)
        return answers

    def _decode(self, prompts: Sequence[Prompt], best: bool) -> Answers:
        size, device = self.predictor.original_size, self.predictor.model.device
        assert size is not None

        def tensor(values: Any) -> torch.Tensor:
            return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=device)

        boxes = points = None
        if has_box := prompts[0].box is not None:
            boxes = tensor(self.transform.apply_boxes(np.array([p.box for p in prompts], np.float64), size))
        if prompts[0].labels:
            coords = self.transform.apply_coords(np.array([p.points for p in prompts]), size)
            points = (tensor(coords), tensor([p.labels for p in prompts]))
        logits, iou = self.predictor.predict_torch(points, boxes, None, 4)
        every = logits.float().cpu().numpy()
        scores = iou.float().cpu().numpy() if self.predictor.score == "iou" else stability_score(every)
        point_masks = architecture(self.predictor.model.architecture).point_masks
        shown = np.array([best_mask(row, has_box=has_box, point_masks=point_masks) for row in scores], np.int64)
        return Answers(every[np.arange(len(every)), shown] if best else every[:, 0], shown)


class ArtifactSubject:
    """One artefact of a built package, through its runtime on this machine's processor.

    Raises:
        As :class:`ArtifactPredictor`.
    """

    def __init__(self, package: Path, artifact_id: str, *, arithmetic: Arithmetic = "device-like") -> None:
        self.name = artifact_id
        self.predictor = ArtifactPredictor(package, artifact_id, arithmetic=arithmetic)
        self.transform = self.predictor.transform
        artifact, manifest = self.predictor.artifact, self.predictor.manifest
        self.identity = {
            "artifact": artifact_id,
            "executed_by": runtime_of(artifact.format, arithmetic),
            "encoder_sha256": artifact.encoder.file.sha256,
            "decoder_sha256": artifact.decoder.file.sha256,
            "weights": manifest.weights.name,
            "sha256": manifest.weights.sha256,
            "upsample": manifest.upsample,
            "input_size": manifest.picture.size,
        }

    def set_image(self, image: NDArray[np.uint8]) -> None:
        self.predictor.set_image(image)

    def answer(self, prompts: Sequence[Prompt], *, best: bool) -> Answers:
        side = self.predictor.manifest.mask.low_resolution
        answers = Answers(np.empty((len(prompts), side, side), np.float32), np.empty(len(prompts), np.int64))
        for number, prompt in enumerate(prompts):
            points, labels = (prompt.points, prompt.labels) if prompt.labels else (None, None)
            decoded = self.predictor.decode(self.predictor.prompt(points, labels, prompt.box))
            answers.logits[number] = decoded.best_mask if best else decoded.masks[0]
            answers.shown[number] = decoded.best
        return answers


def _alike(prompts: Sequence[Prompt], chunk: int) -> Iterator[list[int]]:
    """Numbers of prompts with equally many points, ``chunk`` at a time: padding the others would change masks."""
    kinds: dict[tuple[bool, int], list[int]] = {}
    for number, prompt in enumerate(prompts):
        kinds.setdefault((prompt.box is not None, len(prompt.labels)), []).append(number)
    for numbers in kinds.values():
        yield from (numbers[start : start + chunk] for start in range(0, len(numbers), chunk))
