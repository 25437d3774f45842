"""segment-anything's own code, run in a process of its own: ``python segment_anything_oracle.py JOB FOLDER``.

PyPI's torchvision is built for CUDA and does not load beside a CPU torch. segment-anything imports it for
resizing, which needs no operators, so the two it registers at import are declared where they are missing.
That must not happen in a process that runs other tests.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch


def import_torchvision() -> object:
    """Import torchvision, with or without its operators; gives what must stay alive meanwhile."""
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401

        return library
    return None


class GivenEncoder(torch.nn.Module):
    """Remembers the picture it gets and answers with an embedding computed elsewhere."""

    img_size = 1024

    def __init__(self, embedding: torch.Tensor) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        self.picture = picture
        return self.embedding


def layouts(folder: Path) -> None:
    """``layouts.json``: keys and shapes of each ViT model, as segment-anything builds it and as we do."""
    from segment_anything import sam_model_registry

    from edgesam_mobile.model.registry import state_layout

    both = {}
    for size in "blh":
        with torch.device("meta"):
            theirs = sam_model_registry[f"vit_{size}"]().state_dict()
        ours = state_layout(f"sam-vit-{size}")
        both[f"sam-vit-{size}"] = [{key: tuple(tensor.shape) for key, tensor in theirs.items()}, ours]
    (folder / "layouts.json").write_text(json.dumps(both))


def given_embedding(folder: Path) -> Any:
    """segment-anything's model with the embedding and the decoder's weights that lie in the folder."""
    from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    state = torch.load(folder / "decoder.pt", weights_only=True)
    model = Sam(
        GivenEncoder(state.pop("embedding")),
        PromptEncoder(256, (64, 64), (1024, 1024), 16),
        MaskDecoder(
            transformer_dim=256,
            transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
        ),
    )
    model.load_state_dict(state, strict=True)
    return model.eval()


def predict(folder: Path) -> None:
    """``answers.npz``: for each of the prompts, logits, scores and low-resolution logits for 1 and 3 masks."""
    from segment_anything import SamPredictor

    prompts, arrays = json.loads((folder / "prompts.json").read_text()), np.load(folder / "inputs.npz")
    model = given_embedding(folder)
    predictor = SamPredictor(model)
    predictor.set_image(arrays["picture"])
    answers = {"picture": model.image_encoder.picture.numpy()}
    for name, prompt in prompts.items():
        given = {key: np.array(value) for key, value in prompt.items() if key != "mask"}
        if "mask" in prompt:
            given["mask_input"] = arrays[prompt["mask"]]
        for count in (1, 3):
            parts = predictor.predict(**given, multimask_output=count == 3, return_logits=True)
            for part, array in zip(("logits", "scores", "low_res"), parts, strict=True):
                answers[f"{name}/{count}/{part}"] = array
    np.savez(folder / "answers.npz", **answers)


def onnx(folder: Path) -> None:
    """``answers.npz``: low-resolution logits and scores of segment-anything's export wrapper for all four masks."""
    from segment_anything.utils.onnx import SamOnnxModel

    model = given_embedding(folder)
    wrapper = SamOnnxModel(model, return_single_mask=False)
    answers = {}
    for name, prompt in json.loads((folder / "prompts.json").read_text()).items():
        coords = torch.tensor([prompt["point_coords"]], dtype=torch.float32)
        labels = torch.tensor([prompt["point_labels"]], dtype=torch.float32)
        no_mask, size = torch.zeros(1, 1, 256, 256), torch.tensor([1024.0, 1024.0])
        with torch.no_grad():
            _, scores, low_res = wrapper(model.image_encoder.embedding, coords, labels, no_mask, torch.zeros(1), size)
        answers |= {f"{name}/scores": scores.numpy(), f"{name}/low_res": low_res.numpy()}
    np.savez(folder / "answers.npz", **answers)


def vit_b(folder: Path) -> None:
    """``answers.npz``: both predictors' answers with the same random ViT-B, ours read from a checkpoint."""
    import segment_anything

    import edgesam_mobile

    torch.manual_seed(0)
    theirs = segment_anything.sam_model_registry["vit_b"]().eval()
    for name, parameter in theirs.named_parameters():
        if name.endswith(("pos_embed", "rel_pos_h", "rel_pos_w")):  # zero until trained
            torch.nn.init.normal_(parameter, std=0.1)
    torch.save(theirs.state_dict(), folder / "vit_b.pt")
    ours = edgesam_mobile.load_model(folder / "vit_b.pt")
    picture, box = np.load(folder / "inputs.npz")["picture"], np.array([28, 0, 400, 288])
    answers = {}
    for who, predictor in (
        ("theirs", segment_anything.SamPredictor(theirs)),
        ("ours", edgesam_mobile.SamPredictor(ours)),
    ):
        predictor.set_image(picture)
        masks, scores, low_res = predictor.predict(np.array([[245, 140]]), np.array([1]), box=box, return_logits=True)
        answers |= {f"{who}/logits": masks, f"{who}/scores": scores, f"{who}/low_res": low_res}
        answers[f"{who}/embedding"] = predictor.features.numpy()
    np.savez(folder / "answers.npz", **answers)


if __name__ == "__main__":
    declared = import_torchvision()
    {"layouts": layouts, "predict": predict, "onnx": onnx, "vit_b": vit_b}[sys.argv[1]](Path(sys.argv[2]))
