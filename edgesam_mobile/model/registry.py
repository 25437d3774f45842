"""One table of architectures: how to build each, and how its masks are meant to be chosen."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from edgesam_mobile.errors import UsageError
from edgesam_mobile.model.repvit import M1, TINY, RepVitEncoder, RepVitVariant
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.model.tiny_vit import TinyVitEncoder
from edgesam_mobile.model.vit import vit_encoder
from edgesam_mobile.weights.registry import REGISTRY

EncoderBuilder = Callable[[str | None], nn.Module]


@dataclass(frozen=True)
class Architecture:
    """An image encoder under SAM's prompt encoder and mask decoder.

    Attributes:
        encoder: builds the image encoder, given the up-sampling mode.
        upsample: default interpolation of the fuse; ``None`` where there is none.
        score: ``"iou"`` (the head's prediction) or ``"stability"``, whichever is usable: EdgeSAM fine-tunes its
            decoder without an IoU loss, so its head's predictions no longer mean much.
        point_masks: how many masks compete for a prompt without a box: the last 3 (SAM's training) or all 4
            (EdgeSAM's).
        input_sizes: sides of the square input that the encoder accepts.
        deployable: whether its encoder has a form for phones; the others load, predict and teach.
    """

    name: str
    encoder: EncoderBuilder
    upsample: str | None
    score: str
    point_masks: int
    input_sizes: tuple[int, ...] = (1024,)
    deployable: bool = True


_ANY_SIZE = (256, 512, 768, 1024)


def _repvit(variant: RepVitVariant) -> EncoderBuilder:
    return lambda upsample: RepVitEncoder(variant, upsample=upsample or "bicubic")


ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture("edge-sam", _repvit(M1), "bicubic", "stability", 4, _ANY_SIZE),
        Architecture("edge-sam-tiny", _repvit(TINY), "bicubic", "stability", 4, _ANY_SIZE),
        Architecture("mobile-sam", lambda _: TinyVitEncoder(), None, "iou", 3, _ANY_SIZE),
        Architecture("sam-vit-b", lambda _: vit_encoder("b"), None, "iou", 3, deployable=False),
        Architecture("sam-vit-l", lambda _: vit_encoder("l"), None, "iou", 3, deployable=False),
        Architecture("sam-vit-h", lambda _: vit_encoder("h"), None, "iou", 3, deployable=False),
    )
}


def architecture(name: str) -> Architecture:
    """Look an architecture up.

    Raises:
        UsageError: unknown name; the hint gives the nearest one.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    near = difflib.get_close_matches(name, ARCHITECTURES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(ARCHITECTURES)}"
    raise UsageError(f"no architecture named {name!r}", hint=hint)


def refuse_undeployable(name: str) -> None:
    """Refuse to export an architecture that is not for phones, by its own name or that of its registered weights.

    Any other name passes: what it leads to is told by the file of that name.

    Raises:
        UsageError: it only loads, predicts and teaches.
    """
    known = REGISTRY.get(name)
    spec = ARCHITECTURES.get(known.architecture if known else name)
    if spec is not None and not spec.deployable:
        able = ", ".join(e.name for e in REGISTRY.values() if ARCHITECTURES[e.architecture].deployable)
        raise UsageError(f"{spec.name} has no form for phones: it predicts and teaches", hint=f"choose one of {able}")


def build_model(name: str, *, upsample: str | None = None, image_size: int = 1024) -> Sam:
    """An architecture with fresh random weights, in evaluation mode.

    Args:
        name: a key of :data:`ARCHITECTURES`.
        upsample: ``"bicubic"`` or ``"bilinear"`` for the fuse of RepViT encoders; ``None`` takes the default.
        image_size: side of the square input in pixels.

    Raises:
        UsageError: unknown name, or an up-sampling or input size that the architecture does not have.
    """
    spec = architecture(name)
    if upsample is not None and (spec.upsample is None or upsample not in ("bicubic", "bilinear")):
        hint = "choose bicubic or bilinear" if spec.upsample else "leave --upsample out for this model"
        raise UsageError(f"{name} has no up-sampling {upsample!r}", hint=hint)
    if image_size not in spec.input_sizes:
        sizes = ", ".join(str(size) for size in spec.input_sizes)
        raise UsageError(f"{name} does not take {image_size}-pixel inputs", hint=f"choose one of {sizes}")
    encoder = spec.encoder(upsample or spec.upsample)
    return Sam(encoder, architecture=name, image_size=image_size).eval()


def state_layout(name: str) -> dict[str, tuple[int, ...]]:
    """Every state-dict key of an architecture with its shape, without allocating the weights."""
    with torch.device("meta"):
        model = build_model(name)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}
