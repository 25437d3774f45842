"""Interactive prediction in PyTorch, with segment-anything's names and meanings."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from edgesam_mobile.errors import UsageError
from edgesam_mobile.model.choice import stability_score
from edgesam_mobile.model.geometry import ResizeLongestSide
from edgesam_mobile.model.registry import architecture
from edgesam_mobile.model.sam import MASK_THRESHOLD, Sam

Score = Literal["iou", "stability"]


class SamPredictor:
    """Embeds a picture once, then answers prompts on it.

    Args:
        model: from :func:`edgesam_mobile.load_model`.
        score: ``"iou"`` (the model's own prediction) or ``"stability"``; ``None`` takes what is usable for the
            architecture (EdgeSAM's IoU head is not distilled, so stability; SAM and MobileSAM, iou).
    """

    def __init__(self, model: Sam, *, score: Score | None = None) -> None:
        self.model = model
        self.score = score or architecture(model.architecture).score
        self.transform = ResizeLongestSide(model.image_size)
        self.reset_image()

    def reset_image(self) -> None:
        """Forget the current picture."""
        self._features: Tensor | None = None
        self.original_size: tuple[int, int] | None = None
        self.input_size: tuple[int, int] | None = None

    @property
    def features(self) -> Tensor:
        """The current picture's embedding, 1 x 256 x S/16 x S/16.

        Raises:
            UsageError: no picture has been set.
        """
        if self._features is None:
            raise UsageError("no picture is set", hint="call set_image first")
        return self._features

    @torch.inference_mode()
    def set_image(self, image: NDArray[np.uint8]) -> None:
        """Embed a picture: H x W x 3, uint8, RGB.

        Raises:
            UsageError: another shape or dtype.
        """
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise UsageError(f"a picture is H x W x 3 uint8 RGB, not {image.shape} {image.dtype}")
        resized = self.transform.apply_image(image)
        pixels = torch.from_numpy(resized).to(self.model.device).permute(2, 0, 1)[None].float()
        self._features = self.model.image_encoder(self.model.preprocess(pixels))
        self.original_size = (image.shape[0], image.shape[1])
        self.input_size = (resized.shape[0], resized.shape[1])

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        num_multimask_outputs: int = 3,
        return_logits: bool = False,
    ) -> tuple[NDArray[np.generic], NDArray[np.float32], NDArray[np.float32]]:
        """Predict masks for one prompt on the current picture.

        Args:
            point_coords: N x 2, (x, y) in pixels of the picture.
            point_labels: N; 1 is foreground, 0 is background.
            box: 4, as x1, y1, x2, y2 in pixels of the picture.
            mask_input: 1 x S/4 x S/4 logits, usually from an earlier call.
            num_multimask_outputs: 1, 3 or 4 masks (EdgeSAM's meaning: token 0, tokens 1 to 3, all).
            return_logits: give logits at the picture's size instead of booleans.

        Returns:
            Masks M x H x W, scores M, and low-resolution logits M x S/4 x S/4.

        Raises:
            UsageError: no picture set, prompts mis-shaped or outside the picture, or no such count of masks.
        """
        if self.original_size is None:
            raise UsageError("no picture is set", hint="call set_image first")
        if num_multimask_outputs not in (1, 3, 4):
            raise UsageError(f"num_multimask_outputs is 1, 3 or 4, not {num_multimask_outputs}")
        points, boxes, masks = self._prompts(point_coords, point_labels, box, mask_input)
        low_res, iou = self.predict_torch(points, boxes, masks, num_multimask_outputs)
        logits = low_res[0].float().cpu().numpy()
        scores = iou[0].float().cpu().numpy() if self.score == "iou" else stability_score(logits)
        full = self.transform.upscale_masks(logits, self.original_size)
        return full if return_logits else full > MASK_THRESHOLD, scores, logits

    @torch.inference_mode()
    def predict_torch(
        self,
        points: tuple[Tensor, Tensor] | None,
        boxes: Tensor | None,
        masks: Tensor | None,
        num_multimask_outputs: int,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompts given in pixels of the model's input (see :meth:`PromptEncoder.forward`).

        Returns:
            Logits B x M x S/4 x S/4 and the IoU head's predictions B x M.
        """
        encoder = self.model.prompt_encoder
        sparse, dense = encoder(points, boxes, masks)
        low_res, iou = self.model.mask_decoder(
            self.features, encoder.get_dense_pe(), sparse, dense, num_multimask_outputs
        )
        return low_res, iou

    def _prompts(
        self,
        point_coords: ArrayLike | None,
        point_labels: ArrayLike | None,
        box: ArrayLike | None,
        mask_input: ArrayLike | None,
    ) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None, Tensor | None]:
        assert self.original_size is not None
        size, device = self.original_size, self.model.device
        points = boxes = masks = None
        if (point_coords is None) != (point_labels is None):
            raise UsageError("points need coordinates and labels, one label a point")
        if point_coords is not None and point_labels is not None:
            coords, labels = self.transform.check_points(point_coords, point_labels, size)
            coords = self.transform.apply_coords(coords, size)
            points = (
                torch.as_tensor(coords, dtype=torch.float32, device=device)[None],
                torch.as_tensor(labels, dtype=torch.float32, device=device)[None],
            )
        if box is not None:
            corners = self.transform.apply_boxes(self.transform.check_box(box, size), size)
            boxes = torch.as_tensor(corners, dtype=torch.float32, device=device).reshape(1, 4)
        if mask_input is not None:
            logits = self.transform.check_mask(mask_input, self.model.image_size // 4)
            masks = torch.from_numpy(logits).to(device)[None]
        return points, boxes, masks
