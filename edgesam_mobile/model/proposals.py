"""The granularity prior's proposal head: boxes of objects from the stages of a frozen RepViT encoder.

EdgeSAM (arXiv 2312.06660) puts EfficientDet's pyramid and head (arXiv 1911.09070) on its encoder's stages of
strides 8, 16 and 32, so that a single point can be given the box of the object that people usually mean. Followed:
three rounds of BiFPN and 64 channels; two towers of three separable convolutions, shared over the five levels but
for their batch norms; 9 anchors a cell; one class. Where the pyramid differs, :mod:`edgesam_mobile.model.pyramid`
says so; batch norms have PyTorch's defaults. Written from the papers.

On RepViT-M1: 194,598 parameters (the paper says 0.2 M) and 1.26 GMAC at 1024 x 1024, 6 % of the encoder's. (The
paper's 0.1 G can hardly be right for a head like this.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesam_mobile.errors import UsageError, WeightsError
from edgesam_mobile.model.anchors import KINDS, STRIDES
from edgesam_mobile.model.layers import ConvNorm
from edgesam_mobile.model.pyramid import LEVELS, Pyramid, depthwise
from edgesam_mobile.model.repvit import RepVitEncoder
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.weights.checkpoint import Metadata, read_checkpoint, write_checkpoint

PREFIX = "proposals."
"""What the head's keys begin with in a checkpoint."""

_WIDTH, _ROUNDS, _DEPTH = 64, 3, 3
_RARE = 0.01  # what an untrained head takes for the share of anchors with an object (focal loss, arXiv 1708.02002)


class Tower(nn.Module):
    """Separable convolutions shared over the levels, with batch norms of each level's own, and one for the answer."""

    def __init__(self, width: int, out_chs: int) -> None:
        super().__init__()
        self.depthwise = nn.ModuleList(depthwise(width) for _ in range(_DEPTH))
        self.pointwise = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for _ in range(_DEPTH))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(LEVELS * _DEPTH))  # level by level
        self.answer = nn.Sequential(depthwise(width), nn.Conv2d(width, out_chs, 1))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        answers = []
        for level, x in enumerate(maps):
            for spread, mix, norm in self.layers(level):
                x = F.silu(norm(mix(spread(x))))
            answers.append(self.answer(x))
        return answers

    def layers(self, level: int) -> Iterator[tuple[nn.Module, nn.Module, nn.Module]]:
        """Depthwise convolution, 1x1 convolution and batch norm of each layer, as a level uses them."""
        norms = self.norms[level * _DEPTH : (level + 1) * _DEPTH]
        return zip(self.depthwise, self.pointwise, norms, strict=True)

    def fused(self) -> FixedTower:
        return FixedTower(self)


class FixedTower(nn.Module):
    """:class:`Tower` for inference: folding the batch norms gives each level 1x1 convolutions of its own."""

    def __init__(self, source: Tower) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for level in range(LEVELS):
            layers: list[nn.Module] = []
            for spread, mix, norm in source.layers(level):
                pair = ConvNorm(1, 1)
                pair.c, pair.bn = cast(nn.Conv2d, mix), cast(nn.BatchNorm2d, norm)
                layers += [spread, pair.fused(), nn.SiLU()]
            self.levels.append(nn.Sequential(*layers, source.answer))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [level(x) for level, x in zip(self.levels, maps, strict=True)]


class ProposalHead(nn.Module):
    """Stage features to one logit and four deltas an anchor.

    Args:
        in_chs: channels of the three stages, as :func:`stage_widths` gives them.
    """

    def __init__(self, in_chs: Sequence[int]) -> None:
        super().__init__()
        self.pyramid = Pyramid(in_chs, _WIDTH, _ROUNDS)
        self.objectness = Tower(_WIDTH, KINDS)
        self.box = Tower(_WIDTH, 4 * KINDS)
        nn.init.constant_(self.objectness.answer[1].bias, -math.log(1 / _RARE - 1))  # type: ignore[arg-type]

    def maps(self, stages: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level, the finest first: logits B x 9 x H x W, and deltas B x 36 x H x W.

        A delta's channels are 9 for x, then 9 for y, for the width and for the height: so a level is decoded with
        slices and broadcasts, without a constant as large as the map.
        """
        maps = self.pyramid(stages)
        return self.objectness(maps), self.box(maps)

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits B x A and deltas B x 4 x A, anchors ordered as by :func:`~.anchors.all_anchors`."""
        logits, deltas = self.maps(stages)
        batch = len(logits[0])
        return (
            torch.cat([level.reshape(batch, -1) for level in logits], 1),
            torch.cat([level.reshape(batch, 4, -1) for level in deltas], 2),
        )


class StageModules(Protocol):
    """The modules of a RepViT encoder, as it has them itself or an exported graph does."""

    @property
    def features(self) -> nn.ModuleList: ...
    @property
    def fuse_stage2(self) -> nn.Module: ...
    @property
    def fuse_stage3(self) -> nn.Module: ...
    @property
    def neck(self) -> nn.Module: ...


class Stages:
    """Where a RepViT encoder's stages end, and the walks that give their features.

    The encoder itself gives only its embedding; it may be fused or not.

    Args:
        model: its encoder is a RepViT, and its input a multiple of 128 pixels.

    Raises:
        UsageError: it is not.
    """

    def __init__(self, model: Sam) -> None:
        encoder = model.image_encoder
        if not isinstance(encoder, RepVitEncoder):
            raise UsageError(f"{model.architecture} has no stages to propose boxes from", hint="use an edge-sam")
        if model.image_size % STRIDES[-1]:
            raise UsageError(f"proposals need an input of a multiple of {STRIDES[-1]} pixels, not {model.image_size}")
        starts = [i for i, block in enumerate(encoder.features) if i and _halves(block)]
        self.ends = (*starts[1:], len(encoder.features))
        # A stage's first convolution works on each channel of the stage before.
        widths = [_first_convolution(encoder.features[start]).in_channels for start in starts[1:]]
        self.widths = (*widths, _first_convolution(encoder.fuse_stage3).in_channels)

    def features(self, encoder: StageModules, x: Tensor) -> list[Tensor]:
        """Normalised pictures B x 3 x S x S to the features at strides 8, 16 and 32."""
        stages, start = [], 0
        for end in self.ends:
            for place in range(start, end):  # a slice would give its blocks other names in an exported graph
                x = encoder.features[place](x)
            stages.append(x)
            start = end
        return stages

    @staticmethod
    def embedding(encoder: StageModules, stages: Sequence[Tensor]) -> Tensor:
        """The embedding that the encoder itself makes of these features."""
        y: Tensor = encoder.neck(encoder.fuse_stage3(stages[2], encoder.fuse_stage2(stages[1])))
        return y


def write_proposals(path: Path, head: ProposalHead, metadata: Metadata) -> Path:
    """Write a head to a checkpoint of its own; ``metadata`` names the encoder's architecture.

    Raises:
        UsageError, StorageError: as :func:`write_checkpoint`.
    """
    return write_checkpoint(path, {PREFIX + key: value for key, value in head.state_dict().items()}, metadata)


def read_proposals(path: Path, model: Sam) -> ProposalHead:
    """The head in a checkpoint, its own or one that holds the model as well, for the encoder of ``model``.

    Returns:
        The head in evaluation mode. That its weights were trained on this very encoder cannot be told.

    Raises:
        UsageError: the model can have no such head.
        WeightsError: the file is damaged, holds no head, or one that does not fit.
    """
    state = read_checkpoint(path).state
    head = ProposalHead(Stages(model).widths)
    load_proposals(head, state, source=str(path))
    return head.eval().to(model.device)


def load_proposals(head: ProposalHead, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copy those of ``state`` that are the head's into it, strictly.

    Raises:
        WeightsError: a key is missing, unexpected or mis-shaped.
    """
    own = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
    if not own:
        raise WeightsError(f"{source} holds no proposal head", hint='train one with stage "proposals"')
    expected = head.state_dict()
    strange = set(expected.keys() ^ own.keys())
    wrong = sorted(strange | {k for k in expected.keys() & own.keys() if expected[k].shape != own[k].shape})
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise WeightsError(
            f"{source} does not fit the proposal head: {PREFIX}{wrong[0]}{more} missing, unexpected or mis-shaped",
            hint="use the head of this encoder's architecture",
        )
    head.load_state_dict(own, strict=True)


def _convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def _first_convolution(module: nn.Module) -> nn.Conv2d:
    return _convolutions(module)[0]


def _halves(block: nn.Module) -> bool:
    return any(conv.stride == (2, 2) for conv in _convolutions(block))
