"""Palettes tuned through a whole graph, after each layer's was fitted alone.

Which weight takes which value stays; the values, and all parameters that are no palette, follow the gradient of what
the graph answers wrongly on calibration pictures. These are one in eighty of an encoder's numbers, so that few
pictures are enough. (AQLM, arXiv 2401.06118, does so for each block of a language model.)
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgesam_mobile.deploy.calibration import Sample
from edgesam_mobile.deploy.palettes import Palette

_LOG = logging.getLogger(__name__)
_SECONDS = 30.0  # between two lines about how far it is
_PASSES = 4  # over all samples, but not more than
_STEPS = 128
_WARMING = 10  # steps until the rate is reached, from which it falls to zero along a cosine
_RATE = 4e-4  # of a tensor's mean magnitude, in a step


def tune_palettes(
    module: nn.Module, exact: nn.Module, palettes: Mapping[str, Palette], samples: Sequence[Sample]
) -> None:
    """Change a module's palettes and other parameters in place, so that its first output comes near ``exact``'s.

    Args:
        palettes: the layers whose weights are palettes, as :func:`fit_palettes` returns them.
    """
    tables = {name: _table(module.get_parameter(f"{name}.weight"), palette) for name, palette in palettes.items()}
    starts = {f"{name}.weight": table.values for name, table in tables.items()}
    starts |= {name: value.detach() for name, value in module.named_parameters() if name not in starts}
    scales = {name: value.abs().mean() + 1e-6 for name, value in starts.items()}
    moves = {name: torch.zeros_like(value, requires_grad=True) for name, value in starts.items()}

    def moved(*, exact_in_half: bool = False) -> dict[str, Tensor]:
        now = {name: start + scales[name] * moves[name] for name, start in starts.items()}
        if exact_in_half:
            now = {name: value.half().float() for name, value in now.items()}
        return now | {f"{name}.weight": table.weight(now[f"{name}.weight"]) for name, table in tables.items()}

    with torch.no_grad():
        wanted = [_first(exact(*sample.values())) for sample in samples]
    steps = min(_PASSES * len(samples), _STEPS)
    optimiser = torch.optim.Adam(moves.values(), lr=_RATE, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    for place in _told(_order(len(samples), steps)):
        answer = _first(functional_call(module, moved(), tuple(samples[place].values())))
        loss = (answer - wanted[place]).square().sum() / wanted[place].square().sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        for name, value in moved(exact_in_half=True).items():
            module.get_parameter(name).copy_(value)


class _Table(NamedTuple):
    """A layer's palettes (G x values) and which of them each weight is (G x weights)."""

    values: Tensor
    places: Tensor
    shape: torch.Size

    def weight(self, values: Tensor) -> Tensor:
        return values.gather(1, self.places).reshape(self.shape)


def _table(weight: Tensor, palette: Palette) -> _Table:
    rows = weight.detach().reshape(len(weight) // palette.channels, -1)
    values, places = zip(*(torch.unique(row, return_inverse=True) for row in rows), strict=True)
    most = max(map(len, values))
    same_length = torch.stack([torch.cat([v, v[-1:].expand(most - len(v))]) for v in values])
    return _Table(same_length, torch.stack(places), weight.shape)


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / _WARMING) * (1 + math.cos(math.pi * step / steps)) / 2


def _order(count: int, steps: int) -> list[int]:
    """Places of samples, each pass in another order."""
    chance = random.Random(0)
    passes = [chance.sample(range(count), count) for _ in range(-(-steps // count))]
    return [place for one in passes for place in one][:steps]


def _told(order: Sequence[int]) -> Iterator[int]:
    """Says now and then how many steps there are and how long they will take."""
    started = told = time.monotonic()
    for done, place in enumerate(order, 1):
        yield place
        if (now := time.monotonic()) - told > _SECONDS:
            told, left = now, (now - started) / done * (len(order) - done)
            _LOG.info("tuned %d of %d steps (about %.0f s left)", done, len(order), left)


def _first(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]
