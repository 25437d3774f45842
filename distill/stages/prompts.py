"""Stage 2, prompts in the loop: teacher and student answer the same prompts, then points where they disagree."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn

from distill.data.batch import Batch, Prompts, normalise
from distill.decode import Prompted
from distill.losses import mask_agreement, mask_losses, no_loss, picture_weights, valid_cells
from distill.sampling import correction_points, second_number
from distill.stages.base import Stage
from distill.stages.compare import Comparison, compare, embed_as_used
from distill.teacher import Teacher
from edgesam_mobile.errors import UsageError
from edgesam_mobile.model.sam import MASK_THRESHOLD, Sam


@dataclass(frozen=True)
class PromptOptions:
    """What stage 2 trains, and on what.

    Attributes:
        rounds: correction rounds after the first pass.
        train_tokens: also train the decoder's mask and IoU tokens, as the published training does; its paper
            says they are frozen.
        freeze_decoder: train the image encoder only.
        freeze_encoder: train the mask decoder only.
        iou_loss: weight of the IoU head's loss. Without it, as published, the head is not trained and its
            predictions drift from what the decoder's masks deserve.
        mask_prompts: probability that a correction round also gives a prompt the logits of the round before.
        bce: weight of the cross-entropy.
        dice: weight of the Dice loss.
    """

    rounds: int = 1
    train_tokens: bool = True
    freeze_decoder: bool = False
    freeze_encoder: bool = False
    iou_loss: float = 0.0
    mask_prompts: float = 0.0
    bce: float = 5.0
    dice: float = 5.0

    def __post_init__(self) -> None:
        """Raises: UsageError for values that train nothing or contradict each other."""
        if self.rounds < 0:
            raise UsageError(f"{self.rounds} correction rounds", hint="rounds is 0 or more")
        weights = (self.bce, self.dice, self.iou_loss)
        if not all(0 <= weight < inf for weight in weights) or self.bce + self.dice == 0:
            raise UsageError(
                f"loss weights bce {self.bce:g}, dice {self.dice:g}, iou_loss {self.iou_loss:g}",
                hint="give numbers from 0; bce or dice is above",
            )
        if not 0 <= self.mask_prompts <= 1:
            raise UsageError(f"mask_prompts {self.mask_prompts:g} is no probability", hint="give 0 to 1")
        if self.mask_prompts and not self.rounds:
            raise UsageError("mask_prompts without correction rounds", hint="set rounds to 1 or more")
        if self.freeze_decoder and self.freeze_encoder:
            raise UsageError("encoder and decoder are both frozen", hint="train at least one of them")
        if self.freeze_decoder and self.iou_loss:
            raise UsageError("iou_loss with a frozen decoder", hint="the IoU head is part of it: drop one")


class PromptStage(Stage):
    """Cross-entropy and Dice on the teacher's masks over all passes (EdgeSAM, arXiv 2312.06660, section 3).

    Beyond the paper, by option: the IoU head learns the teacher's prediction times the IoU of the student's mask with
    the teacher's. The second alone would call a faithful copy of a bad mask good. And a correction round may
    give the mask of the round before as a prompt, to each of the two models its own, as it is used later.

    Args:
        model: the student; its prompt encoder is never trained.
        teacher: gives embeddings and decodes the same prompts.
    """

    needs_prompts = True

    def __init__(self, model: Sam, teacher: Teacher, options: PromptOptions) -> None:
        super().__init__()
        self.model, self.teacher, self.options = model, teacher, options
        decoder = model.mask_decoder
        model.requires_grad_(False)
        model.image_encoder.requires_grad_(not options.freeze_encoder)
        decoder.requires_grad_(not options.freeze_decoder)
        if not options.train_tokens:
            decoder.mask_tokens.requires_grad_(False)
            decoder.iou_token.requires_grad_(False)
        if not options.iou_loss:  # no loss reaches it; left trainable, weight decay alone would move it
            decoder.iou_prediction_head.requires_grad_(False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``"loss"`` and, to log, means over the passes of its parts ``bce``, ``dice`` and, if trained, ``iou``;
        ``agreement``, the first pass's IoU with the teacher's masks; ``corrected``, the share of prompts that
        the first pass left wrong enough for a correction point.

        The loss is a mean over the batch's pictures of a mean over their prompts; a picture without prompts
        counts as 0. A batch without any has a loss of 0 whose gradients are zeros for every trainable
        parameter, the encoder's by way of its backward pass, since other processes may wait for both. So has a
        batch without pictures, which skips the encoder. No parameter that is trained is ever without gradient.
        """
        prompts = batch.prompts
        assert prompts is not None, "the stage needs prompts"
        if not len(batch):
            return {"loss": no_loss(self.trainable())}
        found = self._embed(batch)
        if not len(prompts):
            return {"loss": no_loss(self.trainable()) + 0.0 * found.sum()}
        wanted = self.teacher.embed(batch)
        valid = valid_cells(batch.sizes, self.model.image_size, 4 * found.shape[-1])[prompts.image]
        weights = picture_weights(prompts.image, len(batch))
        return self._loop(prompts, (wanted, found), valid, weights)

    def _embed(self, batch: Batch) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.options.freeze_encoder):
            found: Tensor = self.model.image_encoder(normalise(self.model, batch))
        return found.float()

    def _loop(
        self, prompts: Prompts, embeddings: tuple[Tensor, Tensor], valid: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        """All passes on the teacher's and the student's ``embeddings``; ``weights`` (P) are of the prompts."""
        options, asked = self.options, Prompted.first(prompts)
        every = torch.arange(len(prompts), device=weights.device)
        masks: tuple[Tensor | None, Tensor | None] = (None, None)
        passes, told = [], {}
        for turn in range(options.rounds + 1):
            with torch.no_grad():
                theirs, quality = asked.decode(self.teacher.model, embeddings[0], masks[0])
            ours, score = asked.decode(self.model, embeddings[1], masks[1])
            target, mask = theirs > MASK_THRESHOLD, ours.detach() > MASK_THRESHOLD
            agreement = mask_agreement(mask, target, valid)
            passes.append(self._parts(ours, target, valid, (score, quality * agreement), weights))
            best = every, quality.argmax(1)
            if turn == 0:
                told["agreement"] = (agreement[best] * weights).sum() / weights.sum()
            if turn == options.rounds:
                break
            number = prompts.uniform[:, turn]
            point = correction_points(mask[best], target[best], valid, number, self.model.image_size)
            if turn == 0:
                told["corrected"] = (point[1] >= 0).float().mean()
            masked = None
            if options.mask_prompts:
                masks = theirs[best][:, None], ours.detach()[best][:, None]
                masked = second_number(number) < options.mask_prompts
            asked = asked.then(*point, masked)
        return self._total(passes) | told

    def _parts(
        self, logits: Tensor, target: Tensor, valid: Tensor, scores: tuple[Tensor, Tensor], weights: Tensor
    ) -> dict[str, Tensor]:
        """One pass's losses; ``scores`` are the predicted and the wanted ones, P x M."""
        bce, dice = mask_losses(logits, target, valid)
        parts = {"bce": (bce * weights).sum(), "dice": (dice * weights).sum()}
        if self.options.iou_loss:
            error = (scores[0].float() - scores[1].float()).square().mean(1)
            parts["iou"] = (error * weights).sum()
        return parts

    def _total(self, passes: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        parts = {name: torch.stack([one[name] for one in passes]).mean() for name in passes[0]}
        scale = {"bce": self.options.bce, "dice": self.options.dice, "iou": self.options.iou_loss}
        loss = torch.stack([scale[name] * part for name, part in parts.items()]).sum()
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}

    def train(self, mode: bool = True) -> PromptStage:
        """The prompt encoder, and whatever the options freeze, stay in evaluation mode."""
        nn.Module.train(self, mode)
        self.model.prompt_encoder.eval()
        self.model.image_encoder.train(mode and not self.options.freeze_encoder)
        self.model.mask_decoder.train(mode and not self.options.freeze_decoder)
        return self

    def comparison(self, batch: Batch) -> list[Comparison]:
        """Each model's mask from its own embeddings."""
        teacher = self.teacher.model, self.teacher.embed(batch)
        return compare(batch, teacher, (self.model, embed_as_used(self, batch)))
