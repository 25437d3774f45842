"""Stand-in weights: an untrained model that behaves like a trained one for timing, size and structure."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgesam_mobile.model.registry import build_model
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.weights.checkpoint import Metadata, write_checkpoint


def write_standin(
    architecture: str, target: Path, seed: int = 0, *, upsample: str | None = None, image_size: int = 1024
) -> Path:
    """Write seeded, untrained weights of an architecture as safetensors marked ``trained: false``.

    A freshly initialised RepViT has γ = 0 in the last batch norm of every residual branch; converters fold such
    branches away, and the result is smaller and faster than any real model. So batch norms get random affine
    parameters and the statistics of what flows through them.

    Raises:
        UsageError: unknown architecture, or an up-sampling or input size that it does not have.
        StorageError: ``target`` cannot be written.
    """
    model = untrained_model(architecture, seed, upsample=upsample, image_size=image_size)
    metadata = Metadata(
        architecture=architecture,
        upsample=getattr(getattr(model.image_encoder, "fuse_stage3", None), "upsample", None),
        licence="Apache-2.0",
        commercial_use=True,
        provenance=f"untrained stand-in, seed {seed}: timing and structure only, its masks mean nothing",
        trained=False,
        image_size=image_size,
    )
    write_checkpoint(target, model.state_dict(), metadata)
    return target


def untrained_model(architecture: str, seed: int = 0, *, upsample: str | None = None, image_size: int = 1024) -> Sam:
    """A model with random weights whose activations have about unit scale in every layer."""
    generator_state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # sums in another order round differently: other bytes from the same seed
        torch.manual_seed(seed)
        model = build_model(architecture, upsample=upsample, image_size=image_size)
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
            norm.momentum = None  # running statistics become plain averages over the calls below
            norm.train()
        with torch.no_grad():
            model.image_encoder(_smooth_noise(2, 256))
        for norm in norms:
            norm.momentum = 0.1
        return model.eval()
    finally:
        torch.random.set_rng_state(generator_state)
        torch.set_num_threads(threads)


def _smooth_noise(count: int, side: int) -> Tensor:
    """Pictures with energy at all scales, roughly as photographs have, in normalised units."""
    layers = [
        nn.functional.interpolate(torch.randn(count, 3, s, s), size=(side, side), mode="bicubic")
        for s in (4, 16, 64, side)
    ]
    return torch.stack(layers).sum(0) / 2
