"""SAM's own ViT image encoders, from the ``segment-anything`` package (teachers and references).

The package is imported here and nowhere else; nothing that ships on a phone needs it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from edgesam_mobile.errors import EnvironmentMissing

# Width, depth, heads and the blocks with global attention (segment-anything's published models).
_VARIANTS: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "b": (768, 12, 12, (2, 5, 8, 11)),
    "l": (1024, 24, 16, (5, 11, 17, 23)),
    "h": (1280, 32, 16, (7, 15, 23, 31)),
}


def vit_encoder(variant: str) -> nn.Module:
    """ViT-B, -L or -H (``"b"``, ``"l"``, ``"h"``): B x 3 x 1024 x 1024 to B x 256 x 64 x 64.

    Raises:
        EnvironmentMissing: ``segment-anything`` is not installed, or its torchvision does not load.
    """
    width, depth, heads, global_blocks = _VARIANTS[variant]
    encoder = _segment_anything_encoder()
    module = encoder(
        depth=depth,
        embed_dim=width,
        img_size=1024,
        mlp_ratio=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_heads=heads,
        patch_size=16,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=global_blocks,
        window_size=14,
        out_chans=256,
    )
    assert isinstance(module, nn.Module)
    return module


def _segment_anything_encoder() -> Any:
    try:
        from segment_anything.modeling import ImageEncoderViT
    except ModuleNotFoundError as error:
        raise EnvironmentMissing(
            f"SAM's ViT encoders need the package {error.name}",
            hint='pip install "edgesam-mobile[sam]"',
        ) from error
    except (ImportError, RuntimeError, OSError) as error:
        # torchvision's operators are built against one exact torch build (CPU or CUDA) and fail on another.
        reason = str(error).splitlines()[0]
        raise EnvironmentMissing(
            f"SAM's ViT encoders need torchvision, which does not load beside this torch: {reason}",
            hint="install a torchvision built for the same torch (CPU with CPU, CUDA with CUDA)",
        ) from error
    return ImageEncoderViT
