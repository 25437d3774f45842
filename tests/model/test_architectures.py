"""The architectures: keys, sizes, shapes and costs are those of the published models."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgesam_mobile.errors import UsageError
from edgesam_mobile.model.registry import ARCHITECTURES, build_model, state_layout
from edgesam_mobile.model.repvit import RepVitEncoder
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.weights.checkpoint import read_checkpoint

# Keys and parameters of the published edge_sam checkpoints, by part.
EDGE_SAM_PARTS = {
    "image_encoder.features.": (676, 4_713_712),
    "image_encoder.fuse_stage": (2, 147_456),
    "image_encoder.neck.": (6, 656_384),
    "prompt_encoder.": (17, 6_220),
    "mask_decoder.": (120, 4_058_340),
}


@pytest.fixture(scope="module")
def skeleton() -> Sam:
    """EdgeSAM without numbers in it."""
    with torch.device("meta"):
        return build_model("edge-sam")


def test_edge_sam_has_the_published_keys_and_parameters(skeleton: Sam) -> None:
    assert len(skeleton.state_dict()) == 821
    assert sum(parameter.numel() for parameter in skeleton.parameters()) == 9_582_112


@pytest.mark.parametrize("prefix", EDGE_SAM_PARTS)
def test_each_part_of_edge_sam_has_its_keys_and_parameters(skeleton: Sam, prefix: str) -> None:
    keys = [key for key in skeleton.state_dict() if key.startswith(prefix)]
    parameters = [parameter for name, parameter in skeleton.named_parameters() if name.startswith(prefix)]
    assert (len(keys), sum(parameter.numel() for parameter in parameters)) == EDGE_SAM_PARTS[prefix]


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("image_encoder.features.0.0.c.weight", (24, 3, 3, 3)),
        ("image_encoder.features.1.token_mixer.0.conv1.bn.running_var", (48,)),
        ("image_encoder.features.1.token_mixer.1.fc1.weight", (16, 48, 1, 1)),
        ("image_encoder.features.4.token_mixer.2.c.weight", (96, 48, 1, 1)),
        ("image_encoder.features.26.channel_mixer.m.2.bn.num_batches_tracked", ()),
        ("image_encoder.fuse_stage3.op_list.0.weight", (256, 384, 1, 1)),
        ("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", (2, 128)),
        ("mask_decoder.transformer.layers.0.self_attn.q_proj.weight", (256, 256)),
    ],
)
def test_edge_sam_names_its_tensors_as_published(key: str, shape: tuple[int, ...]) -> None:
    assert state_layout("edge-sam")[key] == shape


def test_mobile_sam_has_the_keys_and_shapes_of_the_published_file(mobile_sam_path: Path) -> None:
    published = read_checkpoint(mobile_sam_path).state
    assert state_layout("mobile-sam") == {key: tuple(tensor.shape) for key, tensor in published.items()}


@pytest.mark.slow
def test_vit_models_have_the_keys_and_shapes_of_segment_anything(
    segment_anything: Callable[[str, Path], None], tmp_path: Path
) -> None:
    segment_anything("layouts", tmp_path)
    both = json.loads((tmp_path / "layouts.json").read_text())
    assert set(both) == {name for name in ARCHITECTURES if name.startswith("sam-vit-")}
    for theirs, ours in both.values():
        assert ours == theirs


def test_the_fuse_takes_the_ends_of_the_last_two_stages(skeleton: Sam) -> None:
    """Blocks of one stage have the same shapes, so that a wrong one would load and run as well."""
    encoder, seen = skeleton.image_encoder, {}
    layers = {"fine": encoder.fuse_stage2, "coarse": encoder.fuse_stage3.op_list}
    layers |= dict(enumerate(encoder.features))
    hooks = [
        layer.register_forward_hook(lambda _layer, given, made, name=name: seen.update({name: (given[0], made)}))
        for name, layer in layers.items()
    ]
    encoder(torch.empty(1, 3, 64, 64, device="meta"))
    for hook in hooks:
        hook.remove()
    assert seen["fine"][0] is seen[23][1]
    assert seen["coarse"][0] is seen[26][1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["edge-sam", "mobile-sam"])
@pytest.mark.parametrize("side", [512, 768, 1024])
def test_an_embedding_has_one_cell_per_16_pixels(name: str, side: int) -> None:
    assert side in ARCHITECTURES[name].input_sizes
    model = build_model(name, image_size=side)
    with torch.no_grad():
        embedding = model.image_encoder(torch.zeros(1, 3, side, side))
        sparse, dense = model.prompt_encoder((torch.zeros(2, 1, 2), torch.ones(2, 1)), None, None)
        positions = model.prompt_encoder.get_dense_pe()
        masks, scores = model.mask_decoder(embedding, positions, sparse, dense, 4)
    assert embedding.shape == positions.shape == (1, 256, side // 16, side // 16)
    assert masks.shape == (2, 4, side // 4, side // 4) and scores.shape == (2, 4)


@pytest.mark.parametrize("name", ["edge-sam", "mobile-sam"])
def test_input_sizes_that_are_not_offered_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="640") as caught:
        build_model(name, image_size=640)
    assert "256, 512, 768, 1024" in (caught.value.hint or "")


@pytest.mark.parametrize(("name", "upsample"), [("edge-sam", "nearest"), ("mobile-sam", "bilinear")])
def test_upsampling_that_is_not_offered_is_refused(name: str, upsample: str) -> None:
    with pytest.raises(UsageError, match=upsample):
        build_model(name, upsample=upsample)


def test_every_parameter_of_the_student_learns(small_standin: Sam) -> None:
    """Two prompts, one with and one without a mask, reach all parameters between them."""
    model = copy.deepcopy(small_standin).train()
    generator = torch.Generator().manual_seed(0)
    embedding = model.image_encoder(torch.randn(1, 3, 512, 512, generator=generator))
    points = 512 * torch.rand(1, 2, 2, generator=generator), torch.tensor([[0.0, 1.0]])
    box, mask = torch.tensor([[100.0, 50.0, 400.0, 300.0]]), torch.randn(1, 1, 128, 128, generator=generator)
    loss = torch.zeros(())
    for boxes, masks in ((None, None), (box, mask)):
        sparse, dense = model.prompt_encoder(points, boxes, masks)
        logits, scores = model.mask_decoder(embedding, model.prompt_encoder.get_dense_pe(), sparse, dense, 4)
        target = torch.rand(logits.shape, generator=generator)
        loss = loss + nn.functional.binary_cross_entropy_with_logits(logits, target) + scores.square().mean()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert not [name for name, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()]
    # Softmax does not see what is the same for all keys, so only rounding reaches the keys' biases.
    still = {name for name, gradient in gradients.items() if not gradient.any()}
    assert not {name for name in still if not name.endswith("k_proj.bias")}


def test_bicubic_and_bilinear_upsampling_differ_but_little(small_standin: Sam, cat_at_512: Tensor) -> None:
    bicubic = small_standin.image_encoder
    bilinear = RepVitEncoder(upsample="bilinear").eval()
    bilinear.load_state_dict(bicubic.state_dict(), strict=True)
    with torch.no_grad():
        smooth, plain = bicubic(cat_at_512), bilinear(cat_at_512)
    difference = (smooth - plain).abs()
    assert difference.max() > 0.01
    assert difference.mean() < 0.15 * smooth.std()


def test_the_encoder_costs_what_the_paper_says(skeleton: Sam) -> None:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        skeleton.image_encoder(torch.empty(1, 3, 1024, 1024, device="meta"))
    macs = counter.get_total_flops() / 2
    assert macs == pytest.approx(20.05e9, rel=0.01)
