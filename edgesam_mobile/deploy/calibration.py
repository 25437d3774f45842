"""Real pictures and prompts from which the ranges of a graph's activations are measured."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.slots import EMPTY_SLOT
from edgesam_mobile.errors import WeightsError
from edgesam_mobile.model.geometry import ResizeLongestSide
from edgesam_mobile.model.sam import PIXEL_MEAN

Points = NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """One picture with prompts.

    Attributes:
        image: H x W x 3, uint8, RGB.
        prompts: coordinates N x 2, (x, y) in pixels of the picture, and labels N each; a box is two points with
            the labels 2 and 3.
    """

    image: NDArray[np.uint8]
    prompts: tuple[tuple[Points, Points], ...]


@dataclass(frozen=True)
class Calibration:
    """A set of views with its origin.

    Attributes:
        source: where they come from, for the manifest.
        pictures: different photographs among the views.
        real: false for random numbers.
    """

    source: str
    pictures: int
    views: tuple[View, ...]
    real: bool = True

    @property
    def prompts(self) -> int:
        return sum(len(view.prompts) for view in self.views)

    @cached_property
    def sha256(self) -> str:
        """Of all pixels and prompts, in order: the same set gives the same artefact."""
        digest = hashlib.sha256()
        for view in self.views:
            arrays: list[NDArray[Any]] = [view.image, *(part for prompt in view.prompts for part in prompt)]
            for array in arrays:
                digest.update(f"{array.shape}{array.dtype}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write for another process to :meth:`load`."""
        arrays: dict[str, NDArray[np.generic]] = {}
        for number, view in enumerate(self.views):
            arrays[f"image{number}"] = view.image
            for which, (coords, labels) in enumerate(view.prompts):
                arrays[f"coords{number}.{which}"], arrays[f"labels{number}.{which}"] = coords, labels
        about = {"source": np.array(self.source), "pictures": np.array(self.pictures), "real": np.array(self.real)}
        with path.open("wb") as stream:
            np.savez(stream, **about, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            views: list[View] = []
            while f"image{(number := len(views))}" in arrays:
                prompts: list[tuple[Points, Points]] = []
                while f"coords{number}.{len(prompts)}" in arrays:
                    which = len(prompts)
                    prompts.append((arrays[f"coords{number}.{which}"], arrays[f"labels{number}.{which}"]))
                views.append(View(arrays[f"image{number}"], tuple(prompts)))
            return cls(str(arrays["source"]), int(arrays["pictures"]), tuple(views), bool(arrays["real"]))


Sample = dict[str, Tensor]


def encoder_inputs(graph: Graph, views: tuple[View, ...]) -> list[Sample]:
    """The views as a graph that takes a picture takes them."""
    port = graph.inputs[0]
    side = max(port.shape)
    transform = ResizeLongestSide(side)
    samples = []
    for view in views:
        pixels = transform.apply_image(view.image)
        padded = transform.pad_image(pixels if port.dtype == "uint8" else pixels.astype(np.float32), PIXEL_MEAN)
        batch = padded[None] if port.layout == "NHWC" else padded.transpose(2, 0, 1)[None]
        samples.append({port.name: torch.from_numpy(np.ascontiguousarray(batch))})
    return samples


def decoder_inputs(graph: Graph, side: int, views: Sequence[View], embeddings: Sequence[Tensor]) -> Iterator[Sample]:
    """Embeddings of the views, by the uncompressed encoder of the same layout, with their prompts.

    ``side`` is that of the encoder's input in pixels. Where the graph takes a mask prompt, each prompt comes twice:
    without one, and with its own first answer.
    """
    shapes = {port.name: port.shape for port in graph.inputs}
    batch, slots, _ = shapes["point_coords"]
    transform = ResizeLongestSide(side)
    for view, embedding in zip(views, embeddings, strict=True):
        size = (view.image.shape[0], view.image.shape[1])
        for coords, labels in view.prompts:
            if len(labels) > slots:
                continue
            points = torch.zeros(batch, slots, 2)
            kinds = torch.full((batch, slots), float(EMPTY_SLOT))
            points[:, : len(labels)] = torch.from_numpy(np.asarray(transform.apply_coords(coords, size), np.float32))
            kinds[:, : len(labels)] = torch.from_numpy(labels)
            inputs = {"image_embeddings": embedding, "point_coords": points, "point_labels": kinds}
            if "mask_input" not in shapes:
                yield inputs
                continue
            none = {"mask_input": torch.zeros(shapes["mask_input"]), "has_mask_input": torch.zeros(batch)}
            yield {**inputs, **none}
            with torch.inference_mode():
                mask = graph.module(*inputs.values(), *none.values())[2].clone()
            yield {**inputs, "mask_input": mask, "has_mask_input": torch.ones(batch)}


def graph_inputs(
    graph: Graph, encoder: Graph, calibration: Calibration, dtype: torch.dtype = torch.float32
) -> list[Sample]:
    """What ``graph`` is calibrated with; ``encoder`` is the model's, in the graph's layout.

    Raises:
        WeightsError: an operation answers with what ``dtype`` does not hold, of which no range can be made.
    """
    if graph.name == "decoder":
        pictures = encoder_inputs(encoder, calibration.views)
        embeddings = [embedding for (embedding,) in finite_answers(encoder, pictures, dtype)]
        samples = list(decoder_inputs(graph, max(encoder.inputs[0].shape), calibration.views, embeddings))
    else:
        samples = encoder_inputs(graph, calibration.views)
    finite_answers(graph, samples, dtype)
    return samples


@torch.inference_mode()
def finite_answers(
    graph: Graph, samples: Sequence[Sample], dtype: torch.dtype = torch.float32
) -> list[tuple[Tensor, ...]]:
    """What a graph answers to samples, in single precision; the first layer that would overflow is named in an error.

    Raises:
        WeightsError: an operation answers with what ``dtype`` does not hold.
    """
    watch = _Watch(graph, dtype)
    answers = []
    try:
        for number, sample in enumerate(samples, start=1):
            with watch:
                answers.append(graph.module(*sample.values()))
            if found := watch.found or watch.pending:
                raise WeightsError(f"{found[0]} sample {number} with {found[1]}", hint=found[2])
    finally:
        watch.close()
    return answers


class _Watch(TorchFunctionMode):
    """Looks at what every operation answers, between layers too: a norm's squares overflow before its answer does.

    Attributes:
        found: the first that is beyond ``dtype``: who, what, and what can be done.
        pending: what the last operation made of it, unless it is clamped next: infinity clamps alike.
    """

    def __init__(self, graph: Graph, dtype: torch.dtype) -> None:
        super().__init__()
        self.found: tuple[str, str, str] | None = None
        self.pending: tuple[str, str, str] | None = None
        self._graph, self._most = graph.name, torch.finfo(dtype).max
        self._inside: list[str] = []  # the layers that are at work, the innermost last
        self._hooks = []
        for name, module in graph.module.named_modules():
            enter, leave = partial(self._enter, name or graph.name), self._leave
            self._hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _enter(self, name: str, *_: object) -> None:
        self._inside.append(name)

    def _leave(self, *_: object) -> None:
        self._inside.pop()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = function(*args, **(kwargs or {}))
        if self.pending and function is not Tensor.clamp:
            self.found = self.found or self.pending
        self.pending = None
        for tensor in answer if isinstance(answer, tuple) else (answer,):
            if self.found is None and isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel():
                self._look(max(map(abs, map(float, tensor.aminmax()))))
        return answer

    def _look(self, largest: float) -> None:
        if largest <= self._most:  # never where it is NaN
            return
        who = f"{self._inside[-1]} of the {self._graph} answers"
        if math.isfinite(largest):
            self.pending = who, f"{largest:.6g}, more than half precision holds", "build it with --precision fp32"
        else:
            self.found = who, "NaN or infinity", "check the weights with `edgesam-mobile eval`"
