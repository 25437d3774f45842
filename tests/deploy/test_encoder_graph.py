"""The encoder graph: the predictor's embedding from plain colours, of operations that accelerators have."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from edgesam_mobile.deploy.encoder import encoder_graph
from edgesam_mobile.model.predictor import SamPredictor
from edgesam_mobile.model.sam import PIXEL_MEAN, Sam

PADDING = (124, 116, 104)  # the mean colour, rounded

# Everything that the exported graphs consist of. A new entry needs a look at whether Core ML, XNNPACK, TFLite
# and ONNX Runtime have it, and none of those that read or write by computed indices may appear.
COMMON_OPS = {
    "aten._assert_tensor_metadata.default",
    "aten.add.Tensor",
    "aten.conv2d.default",
    "aten.div.Tensor",
    "aten.gelu.default",
    "aten.mul.Tensor",
    "aten.sqrt.default",
    "aten.sub.Tensor",
    "aten.to.dtype",
    "aten.unsqueeze.default",
}
OPS = {
    "edge-sam": {
        *COMMON_OPS,
        "aten.mean.dim",
        "aten.relu.default",
        "aten.sigmoid.default",
        "aten.upsample_bicubic2d.vec",
    },
    "mobile-sam": {
        *COMMON_OPS,
        "<built-in function getitem>",
        "aten.expand.default",
        "aten.flatten.using_ints",
        "aten.layer_norm.default",
        "aten.linear.default",
        "aten.matmul.default",
        "aten.pad.default",
        "aten.permute.default",
        "aten.reshape.default",
        "aten.slice.Tensor",
        "aten.softmax.int",
        "aten.split.Tensor",
        "aten.transpose.int",
    },
}


@pytest.fixture(scope="module", params=["mobile-sam", "edge-sam"])
def predictor(request: pytest.FixtureRequest, cat: npt.NDArray[np.uint8]) -> SamPredictor:
    """The real MobileSAM at 1024 pixels, and a stand-in at 512; the cat is embedded."""
    if request.param == "mobile-sam":
        return request.getfixturevalue("cat_predictor")
    predictor = SamPredictor(request.getfixturevalue("small_standin"))
    predictor.set_image(cat)
    return predictor


def frame(predictor: SamPredictor, cat: npt.NDArray[np.uint8], *, exact: bool) -> Tensor:
    """1 x S x S x 3: the resized cat with the mean colour around it, exactly or rounded to whole numbers."""
    resized = predictor.transform.apply_image(cat)
    if exact:
        return torch.from_numpy(predictor.transform.pad_image(resized.astype(np.float32), PIXEL_MEAN))[None]
    return torch.from_numpy(predictor.transform.pad_image(resized, PADDING))[None]


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_embedding_is_the_predictors(
    predictor: SamPredictor, cat: npt.NDArray[np.uint8], channels_last: bool
) -> None:
    graph = encoder_graph(predictor.model, channels_last=channels_last)
    picture = frame(predictor, cat, exact=True)
    (embedding,) = graph.module(picture if channels_last else picture.permute(0, 3, 1, 2))
    if channels_last:
        embedding = embedding.permute(0, 3, 1, 2)
    torch.testing.assert_close(embedding, predictor.features, atol=1e-4, rtol=0)


@torch.no_grad()
def test_whole_numbers_give_nearly_the_same_embedding(predictor: SamPredictor, cat: npt.NDArray[np.uint8]) -> None:
    """uint8 colours are exact; only the padding's colour is off, by less than half of one of 255 levels."""
    graph = encoder_graph(predictor.model, channels_last=True, image_dtype="uint8")
    (embedding,) = graph.module(frame(predictor, cat, exact=False))
    difference = (embedding.permute(0, 3, 1, 2) - predictor.features).abs() / predictor.features.std()
    assert difference.mean() < 0.01 and difference.max() < 0.1


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("image_dtype", ["float32", "uint8"])
def test_the_ports_describe_the_graph(small_standin: Sam, channels_last: bool, image_dtype: str) -> None:
    graph = encoder_graph(small_standin, channels_last=channels_last, image_dtype=image_dtype)
    (image,), (embedding,) = graph.inputs, graph.outputs
    assert (image.name, image.dtype) == ("image", image_dtype)
    assert image.shape == ((1, 512, 512, 3) if channels_last else (1, 3, 512, 512))
    assert embedding.shape == ((1, 32, 32, 256) if channels_last else (1, 256, 32, 32))
    assert image.layout == embedding.layout == ("NHWC" if channels_last else "NCHW")
    (example,) = graph.examples()
    assert example.shape == image.shape and str(example.dtype) == f"torch.{image_dtype}"
    (answer,) = graph.module(example)
    assert answer.shape == embedding.shape and str(answer.dtype) == f"torch.{embedding.dtype}"


def test_examples_are_the_same_at_every_call_and_leave_the_generator_alone(small_standin: Sam) -> None:
    graph = encoder_graph(small_standin)
    before = torch.random.get_rng_state()
    first, second = graph.examples()[0], graph.examples()[0]
    assert torch.equal(first, second) and first.std() > 0
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_graph_holds_the_fused_encoder(small_standin: Sam) -> None:
    fused = small_standin.image_encoder.fuse()
    tensors = [*fused.parameters(), *fused.buffers()]
    assert encoder_graph(small_standin).parameter_count() == sum(tensor.numel() for tensor in tensors) + 3


def test_building_the_graph_leaves_the_model_alone(small_standin: Sam) -> None:
    model = copy.deepcopy(small_standin).train()
    graph = encoder_graph(model)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    expected, state = small_standin.state_dict(), model.state_dict()
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert not graph.module.training and not any(p.requires_grad for p in graph.module.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_exported_graph_has_no_unforeseen_operation(predictor: SamPredictor, channels_last: bool) -> None:
    graph = encoder_graph(predictor.model, channels_last=channels_last)
    nodes = torch.export.export(graph.module, graph.examples()).graph.nodes
    found = {str(node.target) for node in nodes if node.op == "call_function"}
    layout = {"aten.permute.default"} if channels_last else set()
    assert found == OPS[predictor.model.architecture] | layout
