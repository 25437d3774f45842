"""The learning rate at every step."""

from __future__ import annotations

from math import cos, pi

from distill.recipe import OptimRecipe


def learning_rate(optim: OptimRecipe, step: int, *, steps: int, per_epoch: int) -> float:
    """Linear warm-up, then half a cosine down to ``optim.min_lr`` (EdgeSAM's published settings).

    The published scheduler takes the cosine's position from the start of training, warm-up included. Where the
    warm-up is half of the run, the rate so drops from the peak to half of it in one step
    (``optim.drop_after_warmup``); otherwise the cosine starts at the peak, when the warm-up ends.

    Args:
        step: 0 for the first of ``steps``.
        per_epoch: steps in an epoch.
    """
    warmup = optim.warmup_epochs * per_epoch
    if step < warmup:
        return optim.warmup_lr + (optim.lr - optim.warmup_lr) * step / warmup
    start = 0 if optim.drop_after_warmup else warmup
    done = (step - start) / max(steps - start, 1)
    return optim.min_lr + (optim.lr - optim.min_lr) * (1 + cos(pi * done)) / 2
