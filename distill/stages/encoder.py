"""Stage 1: the student's encoder learns the teacher's embeddings, cell by cell."""

from __future__ import annotations

from torch import Tensor, nn

from distill.data.batch import Batch, normalise
from distill.losses import feature_cosine, feature_loss, no_loss, valid_cells
from distill.stages.base import Stage
from distill.stages.compare import Comparison, compare, embed_as_used
from distill.teacher import Teacher
from edgesam_mobile.model.sam import Sam


class EncoderStage(Stage):
    """Squared error between embeddings inside the picture (EdgeSAM, arXiv 2312.06660, section 3).

    Args:
        model: the student; only its image encoder is trained.
        teacher: gives the embeddings.
    """

    def __init__(self, model: Sam, teacher: Teacher) -> None:
        super().__init__()
        self.model, self.teacher = model, teacher
        model.requires_grad_(False)
        model.image_encoder.requires_grad_(True)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``"loss"`` and, to log, ``"cosine"``, between the embeddings of a cell; a loss of 0 without pictures."""
        if not len(batch):
            return {"loss": no_loss(self.trainable())}
        wanted = self.teacher.embed(batch)
        found = self.model.image_encoder(normalise(self.model, batch)).float()
        valid = valid_cells(batch.sizes, self.model.image_size, found.shape[-1])
        return {"loss": feature_loss(found, wanted, valid), "cosine": feature_cosine(found, wanted, valid)}

    def train(self, mode: bool = True) -> EncoderStage:
        """Only the image encoder ever leaves evaluation mode."""
        nn.Module.train(self, mode)
        self.model.prompt_encoder.eval()
        self.model.mask_decoder.eval()
        return self

    def comparison(self, batch: Batch) -> list[Comparison]:
        """What the teacher's decoder makes of the teacher's and of the student's embeddings."""
        decoder = self.teacher.model
        return compare(batch, (decoder, self.teacher.embed(batch)), (decoder, embed_as_used(self, batch)))
