"""The deployable image encoder: colours 0..255 in, embedding out, everything static and fused."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from edgesam_mobile.deploy.ports import Graph, Port
from edgesam_mobile.model.sam import PIXEL_MEAN, PIXEL_STD, Sam


class EncoderModule(nn.Module):
    """Subtracts the mean colour, then runs the fused encoder, whose first convolution divides by the deviation.

    The mean cannot be folded as well: that convolution pads with zeros, and zero must remain the mean colour.
    """

    mean: Tensor

    def __init__(self, model: Sam, *, channels_last: bool) -> None:
        super().__init__()
        self.encoder = cast(Any, model.image_encoder).fuse()
        self.channels_last = channels_last
        first = next(m for m in self.encoder.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3)
        with torch.no_grad():
            first.weight.div_(torch.tensor(PIXEL_STD).view(1, 3, 1, 1))
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor]:
        x = image.to(self.mean.dtype)
        if self.channels_last:
            x = x.permute(0, 3, 1, 2)
        y = self.encoder(x - self.mean)
        return (y.permute(0, 2, 3, 1) if self.channels_last else y,)


def encoder_graph(model: Sam, *, channels_last: bool = False, image_dtype: str = "float32") -> Graph:
    """The encoder as a graph to export.

    Args:
        channels_last: picture and embedding as N x H x W x C (TFLite) instead of N x C x H x W.
        image_dtype: ``"float32"`` or ``"uint8"`` colours; either way 0..255.
    """
    side, grid = model.image_size, model.image_size // 16
    if channels_last:
        picture, embedding, layout = (1, side, side, 3), (1, grid, grid, 256), "NHWC"
    else:
        picture, embedding, layout = (1, 3, side, side), (1, 256, grid, grid), "NCHW"
    meaning = "RGB colours 0..255, longest side resized to the input's side, padded right and below"
    return Graph(
        "encoder",
        EncoderModule(model, channels_last=channels_last).eval().requires_grad_(False),
        (Port("image", picture, image_dtype, layout, meaning),),
        (Port("image_embeddings", embedding, "float32", layout, "the picture's embedding, for the decoder"),),
    )
