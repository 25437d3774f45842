"""What a benchmark runs, cut into the same four steps whatever executes it: this is where fairness is decided.

``prepare`` takes the picture to the encoder's input, ``encode`` to the embedding, ``decode`` takes a point to the
logits of the mask to show, ``finish`` to a mask of the picture's size. Baselines normalise in ``prepare``, the
artefacts inside ``encode``: where the two differ, the baselines have the advantage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgesam_mobile.model.choice import best_mask, stability_score
from edgesam_mobile.model.geometry import ResizeLongestSide
from edgesam_mobile.model.sam import MASK_THRESHOLD, PIXEL_MEAN, PIXEL_STD
from edgesam_mobile.runtime.predictor import ArtifactPredictor

Image = NDArray[np.uint8]
Logits = NDArray[np.float32]


class Subject(Protocol):
    """One model, loaded; ``point`` is (x, y) in pixels of the picture, foreground."""

    def prepare(self, image: Image) -> Any: ...

    def encode(self, pixels: Any) -> Any: ...

    def decode(self, embedding: Any, point: tuple[float, float]) -> Logits: ...

    def finish(self, logits: Logits) -> NDArray[np.bool_]: ...


def load_subject(job: dict[str, Any]) -> Subject:
    """Load what a job names (see :func:`edgesam_mobile.lab.host.prepare` for its fields)."""
    if job["kind"] in ("artifact", "interpreted"):
        return ArtifactSubject(Path(job["package"]), job["id"], job["threads"])
    if job["kind"] == "pytorch":
        return TorchSubject(job)
    return PublishedSubject(job)


class ArtifactSubject:
    """An artefact of a package, as applications run it."""

    def __init__(self, package: Path, artifact_id: str, threads: int) -> None:
        self._predictor = ArtifactPredictor(package, artifact_id, threads=threads)

    def prepare(self, image: Image) -> Any:
        self._predictor.original_size = (image.shape[0], image.shape[1])
        return self._predictor.preprocess(image)

    def encode(self, pixels: Any) -> Any:
        return self._predictor.encode(pixels)

    def decode(self, embedding: Any, point: tuple[float, float]) -> Logits:
        prompt = self._predictor.prompt([point], [1])
        outputs = self._predictor.decoder.run({"image_embeddings": embedding, **prompt})
        return np.asarray(outputs["best_mask"][0, 0], np.float32)

    def finish(self, logits: Logits) -> NDArray[np.bool_]:
        assert self._predictor.original_size is not None
        threshold = self._predictor.manifest.mask.threshold
        return np.asarray(self._predictor.transform.upscale_masks(logits, self._predictor.original_size) > threshold)


class _Baseline:
    """What both baselines share: the frame's geometry, and the choice among four masks outside the graph."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._transform = ResizeLongestSide(job["image_size"])
        self._stability = job["score"] == "stability"
        self._point_masks = int(job["point_masks"])
        self._size = (0, 0)

    def finish(self, logits: Logits) -> NDArray[np.bool_]:
        return np.asarray(self._transform.upscale_masks(logits, self._size) > MASK_THRESHOLD)

    def _resize(self, image: Image) -> Image:
        self._size = (image.shape[0], image.shape[1])
        return self._transform.apply_image(image)

    def _best(self, masks: Logits, scores: NDArray[np.floating]) -> Logits:
        best: Logits = masks[best_mask(scores, has_box=False, point_masks=self._point_masks)]
        return best


class TorchSubject(_Baseline):
    """PyTorch eager, unfused, single precision: the steps of :class:`edgesam_mobile.SamPredictor`, cut apart."""

    def __init__(self, job: dict[str, Any]) -> None:
        import torch

        from edgesam_mobile.model.load import load_model

        super().__init__(job)
        torch.set_num_threads(job["threads"])
        self._torch = torch
        self._model = load_model(job["weights"], image_size=job["image_size"], offline=True)

    def prepare(self, image: Image) -> Any:
        with self._torch.inference_mode():
            pixels = self._torch.from_numpy(self._resize(image)).permute(2, 0, 1)[None].float()
            return self._model.preprocess(pixels)

    def encode(self, pixels: Any) -> Any:
        with self._torch.inference_mode():
            return self._model.image_encoder(pixels)

    def decode(self, embedding: Any, point: tuple[float, float]) -> Logits:
        coords = self._transform.apply_coords([point], self._size)
        with self._torch.inference_mode():
            points = self._torch.as_tensor(coords, dtype=self._torch.float32)[None]
            prompts = self._model.prompt_encoder
            sparse, dense = prompts((points, points.new_ones(1, 1)), None, None)
            masks, iou = self._model.mask_decoder(embedding, prompts.get_dense_pe(), sparse, dense, 4)
        logits = masks[0].numpy()
        return self._best(logits, stability_score(logits) if self._stability else iou[0].numpy())


class PublishedSubject(_Baseline):
    """The published-style export on ONNX Runtime, with as many points as the prompt has: one, and padding."""

    def __init__(self, job: dict[str, Any]) -> None:
        import onnxruntime

        super().__init__(job)
        self._labels = np.array([[1, -1]], np.float32)
        self._mean, self._std = np.array(PIXEL_MEAN, np.float32), np.array(PIXEL_STD, np.float32)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job["threads"]
        options.log_severity_level = 3
        self._encoder, self._decoder = (
            onnxruntime.InferenceSession(
                str(Path(job["graphs"]) / f"{part}.onnx"), options, providers=["CPUExecutionProvider"]
            )
            for part in ("encoder", "decoder")
        )

    def prepare(self, image: Image) -> Any:
        normalised = (self._resize(image) - self._mean) / self._std
        padded = self._transform.pad_image(normalised, (0, 0, 0))
        return np.ascontiguousarray(padded.transpose(2, 0, 1)[None])

    def encode(self, pixels: Any) -> Any:
        return self._encoder.run(None, {"image": pixels})[0]

    def decode(self, embedding: Any, point: tuple[float, float]) -> Logits:
        coords = np.zeros((1, 2, 2), np.float32)
        coords[0, 0] = self._transform.apply_coords(point, self._size)
        inputs = {"image_embeddings": embedding, "point_coords": coords, "point_labels": self._labels}
        scores, masks = self._decoder.run(["scores", "masks"], inputs)
        return self._best(masks[0], scores[0])
