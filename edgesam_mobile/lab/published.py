"""The model as ONNX the way published SAM export scripts make it: a baseline, not something to ship.

Run as ``python -m edgesam_mobile.lab.published < job.json``. Branches and batch norms stay apart, the encoder
takes normalised pictures, the decoder any number of points (a box is two points labelled 2 and 3; who calls it
adds SAM's padding point), labels are told apart by comparison, and all four masks come back. The exporter is
torch's former one, which traces: those scripts do not run on the present one.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.sam import Sam

OPSET = 17
ENCODER, DECODER = "encoder.onnx", "decoder.onnx"


class PublishedDecoder(nn.Module):
    """Prompt encoder and mask decoder in one graph.

    Args:
        stability: answer stability scores instead of the IoU head's predictions, as EdgeSAM's script offers.
    """

    def __init__(self, model: Sam, *, stability: bool) -> None:
        super().__init__()
        self.prompt_encoder, self.mask_decoder = model.prompt_encoder, model.mask_decoder
        self.stability = stability

    def forward(self, image_embeddings: Tensor, point_coords: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        prompts = self.prompt_encoder
        sparse = prompts.pe_layer((point_coords + 0.5) / prompts.image_size)
        labels = point_labels[..., None]
        sparse = sparse * (labels != -1) + prompts.not_a_point_embed.weight * (labels == -1)
        for label, embedding in enumerate(prompts.point_embeddings.parameters()):
            sparse = sparse + embedding * (labels == label)
        dense = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(1, -1, prompts.grid, prompts.grid)
        masks, scores = self.mask_decoder(image_embeddings, prompts.get_dense_pe(), sparse, dense, 4)
        if self.stability:
            inner, outer = ((masks > offset).sum((-2, -1), dtype=torch.float32) for offset in (1.0, -1.0))
            scores = inner / outer.clamp(min=1)  # an empty mask would be 0 / 0
        return scores, masks


def export(model: Sam, folder: Path, *, stability: bool) -> None:
    """Write both graphs into a folder."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # the former exporter announces its end
        warnings.filterwarnings("ignore", category=TracerWarning)  # of shapes that never change here
        torch.onnx.export(
            model.image_encoder,
            (torch.zeros(1, 3, model.image_size, model.image_size),),
            str(folder / ENCODER),
            input_names=["image"],
            output_names=["image_embeddings"],
            opset_version=OPSET,
            dynamo=False,
        )
        grid = model.prompt_encoder.grid
        torch.onnx.export(
            PublishedDecoder(model, stability=stability).eval(),
            (torch.zeros(1, 256, grid, grid), torch.zeros(1, 5, 2), torch.zeros(1, 5)),
            str(folder / DECODER),
            input_names=["image_embeddings", "point_coords", "point_labels"],
            output_names=["scores", "masks"],
            dynamic_axes={"point_coords": {1: "points"}, "point_labels": {1: "points"}},
            opset_version=OPSET,
            dynamo=False,
        )


def main() -> None:
    """Read a job from standard input and carry it out."""
    job = json.load(sys.stdin)
    model = load_model(job["weights"], upsample=job["upsample"], image_size=job["image_size"], offline=True)
    export(model, Path(job["folder"]), stability=job["score"] == "stability")


if __name__ == "__main__":
    main()
