"""Prediction with a built package: what :class:`edgesam_mobile.SamPredictor` does, on any runnable artefact."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgesam_mobile.errors import PackageError, UsageError
from edgesam_mobile.model.geometry import ResizeLongestSide
from edgesam_mobile.package.manifest import GraphRecord, Manifest, check_file, read_manifest
from edgesam_mobile.runtime.session import Arithmetic, Array, Session, SessionOptions, open_session

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Decoded:
    """What the decoder answers to one prompt.

    Attributes:
        masks: 4 x S/4 x S/4 logits of all masks.
        scores: 4 scores.
        best_mask: S/4 x S/4 logits of the mask to show.
        best_score: its score.
    """

    masks: Floats
    scores: Floats
    best_mask: Floats
    best_score: float

    @property
    def best(self) -> int:
        """Which of the four masks the graph chose (told by its score and logits)."""
        distance = np.abs(self.masks - self.best_mask).max(axis=(1, 2))
        return int(np.argmin(distance))


class ArtifactPredictor:
    """Runs one artefact of a package.

    Args:
        package: folder that ``edgesam-mobile build`` wrote.
        artifact_id: such as ``tflite-fp32``.
        threads: processor threads; ``None`` takes all there are.
        arithmetic: of interpreted artefacts, see :class:`~edgesam_mobile.runtime.session.SessionOptions`.
        runtime: a key of :data:`~edgesam_mobile.runtime.session.RUNTIMES`; ``None`` takes the format's own.

    Raises:
        PackageError: the package is damaged, or its runtime refuses a file.
        UsageError: no such artefact.
        EnvironmentMissing: nothing on this machine executes the format.
    """

    def __init__(
        self,
        package: Path,
        artifact_id: str,
        *,
        threads: int | None = None,
        arithmetic: Arithmetic = "device-like",
        runtime: str | None = None,
    ) -> None:
        self.manifest: Manifest = read_manifest(package)
        self.artifact = self.manifest.artifact(artifact_id)
        self._package, self._runtime = package, runtime or self.artifact.format
        self._options = SessionOptions(threads or os.cpu_count() or 1, arithmetic)
        self.encoder, self.decoder = self._open(self.artifact.encoder), self._open(self.artifact.decoder)
        self._proposals: Session | None = None
        self.transform = ResizeLongestSide(self.manifest.picture.size)
        self._embedding: Array | None = None
        self.original_size: tuple[int, int] | None = None

    @property
    def features(self) -> Array:
        """The current picture's embedding, in the artefact's layout.

        Raises:
            UsageError: no picture has been set.
        """
        if self._embedding is None:
            raise UsageError("no picture is set", hint="call set_image first")
        return self._embedding

    def preprocess(self, image: NDArray[np.uint8]) -> Array:
        """H x W x 3 uint8 RGB to the encoder's input."""
        port = self.artifact.encoder.inputs[0]
        resized = self.transform.apply_image(image)
        pixels = resized if port.dtype in ("uint8", "image") else resized.astype(np.float32)
        padded = self.transform.pad_image(pixels, self.manifest.picture.pad_rgb)
        batch = padded[None] if port.layout == "NHWC" else padded.transpose(2, 0, 1)[None]
        return np.ascontiguousarray(batch)

    def set_image(self, image: NDArray[np.uint8]) -> None:
        """Embed a picture: H x W x 3, uint8, RGB."""
        self._embedding = self.encode(self.preprocess(image))
        self.original_size = (image.shape[0], image.shape[1])

    def encode(self, pixels: Array) -> Array:
        """The encoder's input to the embedding."""
        return self._run(self.encoder, "encoder", {"image": pixels})["image_embeddings"]

    def propose(self, pixels: Array) -> dict[str, Array]:
        """The encoder's input to the embedding, with the confidences and boxes of all proposals.

        Raises:
            UsageError: the artefact has no graph that gives them.
        """
        graph = self.artifact.proposals
        if graph is None:
            raise UsageError(f"{self.artifact.id} proposes no boxes", hint="build with --proposals HEAD")
        if self._proposals is None:
            self._proposals = self._open(graph)
        return self._run(self._proposals, "proposals graph", {"image": pixels})

    def prompt(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
    ) -> dict[str, Array]:
        """The decoder's inputs for one prompt in pixels of the picture (all but the embedding).

        Arguments are those of :meth:`edgesam_mobile.SamPredictor.predict`, but ``mask_input`` comes with a point or a
        box: the graph adds SAM's padding token to every prompt without a box, SAM adds none to a mask alone.

        Raises:
            UsageError: no picture set, a prompt mis-shaped or outside it, more points than slots, or no point and no
                box.
        """
        if self.original_size is None:
            raise UsageError("no picture is set", hint="call set_image first")
        if (point_coords is None) != (point_labels is None):
            raise UsageError("points need coordinates and labels, one label a point")
        coords: NDArray[np.floating] = np.zeros((0, 2))
        labels: NDArray[np.integer] = np.zeros(0, dtype=np.int64)
        if point_coords is not None and point_labels is not None:
            coords, labels = self.transform.check_points(point_coords, point_labels, self.original_size)
        if box is not None:
            corners = self.transform.check_box(box, self.original_size).reshape(2, 2)
            coords, labels = np.concatenate([coords, corners]), np.concatenate([labels, [2, 3]])
        return self._fill(self.transform.apply_coords(coords, self.original_size), labels, mask_input)

    def _fill(
        self, coords: NDArray[np.floating], labels: NDArray[np.integer], mask: ArrayLike | None
    ) -> dict[str, Array]:
        rules = self.manifest.prompt
        if len(labels) > rules.slots:
            hint = f"build with --slots {len(labels)} (a box takes two slots)"
            raise UsageError(
                f"{len(labels)} prompt points are more than the package's {rules.slots} slots", hint=hint
            )
        if mask is not None and not rules.mask_input:
            raise UsageError("the package takes no mask prompts", hint="build with --mask-input")
        if not len(labels):
            alone = "to a mask alone the graph adds a padding token and PyTorch none: it would answer otherwise"
            raise UsageError("nothing is prompted" if mask is None else alone, hint="give a point or a box")
        points = np.zeros((rules.prompts_per_call, rules.slots, 2), np.float32)
        kinds = np.full((rules.prompts_per_call, rules.slots), -1, np.float32)
        points[0, : len(labels)], kinds[0, : len(labels)] = coords, labels
        inputs: dict[str, Array] = {"point_coords": points, "point_labels": kinds}
        if rules.mask_input:
            side = self.manifest.mask.low_resolution
            shape = (rules.prompts_per_call, 1, side, side)
            inputs["mask_input"] = np.zeros(shape, np.float32)
            inputs["has_mask_input"] = np.zeros(rules.prompts_per_call, np.float32)
            if mask is not None:
                inputs["mask_input"][0] = self.transform.check_mask(mask, side)
                inputs["has_mask_input"][0] = 1
        return inputs

    def decode(self, prompt: dict[str, Array]) -> Decoded:
        """Decode the prompt made by :meth:`prompt` on the current picture."""
        return self.decode_rows(prompt)[0]

    def decode_rows(self, prompt: dict[str, Array]) -> list[Decoded]:
        """Decode as many prompts as the graph takes in one call.

        Args:
            prompt: the decoder's inputs; the embedding is the current picture's unless it is among them.
        """
        outputs = self._run(self.decoder, "decoder", {"image_embeddings": self.features, **prompt})
        as_float = {name: np.asarray(value, np.float32) for name, value in outputs.items()}
        return [
            Decoded(masks, scores, best_mask[0], float(best_score[0]))
            for masks, scores, best_mask, best_score in zip(
                as_float["masks"], as_float["scores"], as_float["best_mask"], as_float["best_score"], strict=True
            )
        ]

    def _open(self, graph: GraphRecord) -> Session:
        return open_session(check_file(self._package, graph.file), graph, self._runtime, self._options)

    def _run(self, session: Session, part: str, inputs: dict[str, Array]) -> dict[str, Array]:
        try:
            return session.run(inputs)
        except Exception as error:  # a graph that is not what the manifest says; each runtime has its own words
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise PackageError(
                f"the {part} of {self.artifact.id} cannot be run: {reason}", hint="build the package again"
            ) from error

    def full_mask(self, decoded: Decoded) -> NDArray[np.bool_]:
        """The mask to show, at the picture's size."""
        assert self.original_size is not None
        logits = self.transform.upscale_masks(decoded.best_mask, self.original_size)
        return np.asarray(logits > self.manifest.mask.threshold)
