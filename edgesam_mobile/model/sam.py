"""The three parts of a promptable segmentation model in one module, and what is known about its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgesam_mobile.model.mask_decoder import MaskDecoder
from edgesam_mobile.model.prompt_encoder import PromptEncoder

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
MASK_THRESHOLD = 0.0


@dataclass(frozen=True)
class Provenance:
    """Where a model's weights come from; carried into every package built from them.

    Attributes:
        architecture: name in the architecture registry.
        weights_sha256: hash of the file the weights were read from.
        upsample: interpolation of the encoder's fuse, ``None`` where there is none.
        trained: ``False`` for stand-in weights, whose masks mean nothing.
        image_size: side of the square input that the weights were trained with, in pixels.
    """

    architecture: str
    weights_name: str
    weights_sha256: str
    licence: str | None
    commercial_use: bool | None
    origin: str | None
    upsample: str | None
    trained: bool = True
    image_size: int = 1024


class Sam(nn.Module):
    """Image encoder, prompt encoder and mask decoder, with segment-anything's names and meanings.

    Attributes:
        image_size: side of the square input in pixels.
        provenance: where the weights come from; ``None`` for a model built in code.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, image_encoder: nn.Module, *, architecture: str, image_size: int = 1024) -> None:
        super().__init__()
        self.architecture, self.image_size = architecture, image_size
        self.image_encoder = image_encoder
        self.prompt_encoder = PromptEncoder(image_size)
        self.mask_decoder = MaskDecoder()
        self.provenance: Provenance | None = None
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def preprocess(self, x: Tensor) -> Tensor:
        """... x 3 x H x W colours 0..255 (already resized) to normalised and zero-padded ... x 3 x S x S."""
        x = (x - self.pixel_mean) / self.pixel_std
        height, width = x.shape[-2:]
        return nn.functional.pad(x, (0, self.image_size - width, 0, self.image_size - height))
