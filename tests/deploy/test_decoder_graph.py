"""The decoder graph: the predictor's answers for any prompt that fits its slots, and the mask to show."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgesam_mobile.deploy.decoder import DEFAULT_SLOTS, DecoderModule, decoder_graph
from edgesam_mobile.deploy.slots import CellPositions, SlotEmbedding
from edgesam_mobile.model.choice import best_mask, stability_score
from edgesam_mobile.model.geometry import ResizeLongestSide
from edgesam_mobile.model.predictor import SamPredictor
from edgesam_mobile.model.prompt_encoder import PromptEncoder
from edgesam_mobile.model.sam import Sam

Answer = tuple[Tensor, Tensor, Tensor, Tensor]

SIZE = (300, 451)  # of the cat
BOX = [28.0, 0.0, 400.0, 288.0]
POINTS = [[245.0, 140.0], [120.5, 60.25], [440.0, 20.0], [0.0, 300.0], [300.0, 250.0], [451.0, 0.0]]
LABELS = [1, 1, 0, 0, 1, 0]
PROMPTS = {
    **{f"{n} points": (POINTS[:n], LABELS[:n], None) for n in range(1, DEFAULT_SLOTS + 1)},
    "a box": ([], [], BOX),
    **{f"a box and {n} points": (POINTS[:n], LABELS[:n], BOX) for n in range(1, DEFAULT_SLOTS - 1)},
}
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "folded": {"folded": True},
    "plain, channels last, stability": {"channels_last": True, "score": "stability"},
    "folded, channels last, stability": {"folded": True, "channels_last": True, "score": "stability"},
}

# Everything that the exported graphs consist of, and what each form adds. A new entry needs a look at whether
# Core ML, XNNPACK, TFLite and ONNX Runtime have it; none that compares, or reads or writes by index, belongs here.
COMMON_OPS = {
    "aten.add.Tensor",
    "aten.amax.default",
    "aten.bmm.default",
    "aten.cat.default",
    "aten.clamp.default",
    "aten.flatten.using_ints",
    "aten.div.Tensor",
    "aten.floor.default",
    "aten.gelu.default",
    "aten.layer_norm.default",
    "aten.linear.default",
    "aten.matmul.default",
    "aten.mul.Tensor",
    "aten.ones_like.default",
    "aten.permute.default",
    "aten.relu.default",
    "aten.reshape.default",
    "aten.rsub.Scalar",
    "aten.slice.Tensor",
    "aten.softmax.int",
    "aten.squeeze.dim",
    "aten.sub.Tensor",
    "aten.sum.dim_IntList",
    "aten.transpose.int",
    "aten.unsqueeze.default",
}
STABILITY_OPS = {"aten.mean.dim"}
MASK_PROMPT_OPS = {"aten.conv2d.default", "aten.mean.dim", "aten.sqrt.default"}
BATCH_OPS = {"aten.expand.default", "aten.repeat.default"}
OPS: tuple[tuple[dict[str, Any], set[str]], ...] = (
    ({"score": "iou"}, set()),
    ({"score": "iou", "folded": True}, set()),
    ({"score": "iou", "channels_last": True}, set()),
    ({"score": "iou", "mask_input": True}, MASK_PROMPT_OPS),
    ({"score": "stability"}, STABILITY_OPS),
    ({"score": "iou", "prompts": 2}, BATCH_OPS),
    ({"score": "iou", "prompts": 2, "folded": True}, BATCH_OPS),
)


@pytest.fixture(scope="module")
def graphs(mobile_sam: Sam) -> Callable[[str], DecoderModule]:
    """The real MobileSAM's decoder in each of :data:`FORMS`, built once."""
    built: dict[str, Any] = {}

    def get(form: str) -> Any:
        if form not in built:
            built[form] = decoder_graph(mobile_sam, **FORMS[form]).module
        return built[form]

    return get


def slots_of(
    points: Any, labels: Any, box: Any, slots: int = DEFAULT_SLOTS, side: int = 1024, box_first: bool = False
) -> tuple[Tensor, Tensor]:
    """A prompt on the cat as the graph takes it: 1 x N x 2 coordinates and 1 x N labels, the rest empty."""
    corners, kinds = (np.reshape(box, (2, 2)).tolist(), [2, 3]) if box else ([], [])
    places = [*corners, *points] if box_first else [*points, *corners]
    numbers = [*kinds, *labels] if box_first else [*labels, *kinds]
    coords, filled = torch.zeros(1, slots, 2), torch.full((1, slots), -1.0)
    inside = ResizeLongestSide(side).apply_coords(np.array(places), SIZE)
    coords[0, : len(places)] = torch.as_tensor(inside, dtype=torch.float32)
    filled[0, : len(numbers)] = torch.tensor(numbers, dtype=torch.float32)
    return coords, filled


def expected(predictor: SamPredictor, points: Any, labels: Any, box: Any, mask: Any = None) -> Any:
    """The predictor's four low-resolution logits and its IoU predictions."""
    given = {"point_coords": points, "point_labels": labels} if points else {}
    _, scores, low_res = predictor.predict(**given, box=box, mask_input=mask, num_multimask_outputs=4)
    return low_res, scores


@torch.no_grad()
def run(module: torch.nn.Module, predictor: SamPredictor, *inputs: Tensor, channels_last: bool = False) -> Answer:
    embedding = predictor.features
    answer: Answer = module(embedding.permute(0, 2, 3, 1) if channels_last else embedding, *inputs)
    return answer


def close(found: Tensor, wanted: Tensor | npt.NDArray[np.float32], tolerance: float = 1e-3) -> None:
    torch.testing.assert_close(found, torch.as_tensor(wanted), atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def predicted(cat_predictor: SamPredictor) -> dict[str, Any]:
    """The predictor's logits and IoU predictions for each of :data:`PROMPTS`."""
    return {name: expected(cat_predictor, *prompt) for name, prompt in PROMPTS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_masks_and_scores_are_the_predictors(
    graphs: Callable[[str], DecoderModule],
    cat_predictor: SamPredictor,
    predicted: dict[str, Any],
    prompt: str,
    form: str,
) -> None:
    points, labels, box = PROMPTS[prompt]
    module = graphs(form)
    masks, scores, best, best_score = run(
        module, cat_predictor, *slots_of(points, labels, box), channels_last=module.channels_last
    )
    low_res, iou = predicted[prompt]
    close(masks[0], low_res)
    assert np.mean((masks[0].numpy() > 0) == (low_res > 0)) >= 0.9999
    if module.score == "iou":
        close(scores[0], iou, 1e-4)
    else:
        close(scores[0], stability_score(low_res))
    chosen = best_mask(scores[0].numpy(), has_box=box is not None, point_masks=3)
    close(best[0, 0], masks[0, chosen], 0)
    close(best_score[0], scores[0, chosen : chosen + 1], 0)


@pytest.mark.parametrize("form", ["plain", "folded"])
def test_prompts_may_lie_in_any_slots(
    graphs: Callable[[str], DecoderModule], cat_predictor: SamPredictor, form: str
) -> None:
    coords, labels = slots_of(POINTS[:2], LABELS[:2], BOX)
    wanted = run(graphs(form), cat_predictor, coords, labels)
    for order in (torch.tensor([5, 3, 1, 2, 0, 4]), torch.arange(DEFAULT_SLOTS).flip(0)):
        found = run(graphs(form), cat_predictor, coords[:, order], labels[:, order])
        for one, other in zip(found, wanted, strict=True):
            close(one, other)


@pytest.mark.parametrize("form", ["plain", "folded"])
@pytest.mark.parametrize("garbage", [1e6, -777.25, 1e30])
def test_coordinates_of_empty_slots_do_not_matter(
    graphs: Callable[[str], DecoderModule], cat_predictor: SamPredictor, form: str, garbage: float
) -> None:
    for prompt in ("2 points", "a box"):
        coords, labels = slots_of(*PROMPTS[prompt])
        wanted = run(graphs(form), cat_predictor, coords, labels)
        spoilt = torch.where(labels[..., None] < 0, torch.tensor(garbage), coords)
        for one, other in zip(run(graphs(form), cat_predictor, spoilt, labels), wanted, strict=True):
            assert torch.equal(one, other)


@pytest.mark.slow
def test_the_padding_point_of_segment_anythings_export_is_understood(
    segment_anything: Callable[[str, Path], None],
    graphs: Callable[[str], DecoderModule],
    cat_predictor: SamPredictor,
    tmp_path: Path,
) -> None:
    """Callers of SAM's ONNX decoder append (0, 0) with label -1 to points without a box; here that may stay."""
    prompts = {}
    for name in ("1 points", "4 points", "a box", "a box and 3 points"):
        points, labels, box = PROMPTS[name]
        used = len(points) + (2 if box else 1)
        coords, kinds = slots_of(points, labels, box)
        prompts[name] = {
            "point_coords": coords[0, :used].tolist(),
            "point_labels": kinds[0, :used].tolist(),
        }
    state = cat_predictor.model.state_dict()
    parts = {key: tensor for key, tensor in state.items() if not key.startswith("image_encoder.")}
    torch.save({**parts, "embedding": cat_predictor.features.clone()}, tmp_path / "decoder.pt")
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    segment_anything("onnx", tmp_path)
    answers = np.load(tmp_path / "answers.npz")
    for name, prompt in prompts.items():
        coords, labels = torch.full((1, DEFAULT_SLOTS, 2), 9.0), torch.full((1, DEFAULT_SLOTS), -1.0)
        used = len(prompt["point_labels"])
        coords[0, :used], labels[0, :used] = (
            torch.tensor(prompt["point_coords"]),
            torch.tensor(prompt["point_labels"]),
        )
        masks, scores, _, _ = run(graphs("plain"), cat_predictor, coords, labels)
        close(masks, answers[f"{name}/low_res"])
        close(scores, answers[f"{name}/scores"], 1e-4)


@pytest.mark.parametrize("options", [{}, {"folded": True}, {"channels_last": True}], ids=str)
def test_a_mask_prompt_counts_when_it_is_switched_on(
    mobile_sam: Sam, cat_predictor: SamPredictor, options: dict[str, bool]
) -> None:
    module = decoder_graph(mobile_sam, mask_input=True, **options).module
    points, labels, box = PROMPTS["a box and 2 points"]
    earlier = cat_predictor.predict([[120, 60]], [1], num_multimask_outputs=1)[2]
    for switch, mask in ((1.0, earlier), (0.0, None)):
        inputs = (*slots_of(points, labels, box), torch.from_numpy(earlier)[None], torch.tensor([switch]))
        masks, scores, _, _ = run(module, cat_predictor, *inputs, channels_last=module.channels_last)
        low_res, iou = expected(cat_predictor, points, labels, box, mask)
        close(masks[0], low_res)
        close(scores[0], iou, 1e-4)
    assert np.abs(expected(cat_predictor, points, labels, box, earlier)[0] - low_res).max() > 1


@pytest.mark.slow
@pytest.mark.parametrize("mask_input", [False, True])
@pytest.mark.parametrize("options", [{}, {"folded": True}, {"channels_last": True, "folded": True}], ids=str)
def test_several_prompts_in_one_call_are_answered_as_one_by_one(
    mobile_sam: Sam, cat_predictor: SamPredictor, options: dict[str, bool], mask_input: bool
) -> None:
    """A point, a box, and both; the second with a mask prompt where the graph takes one."""
    many = decoder_graph(mobile_sam, prompts=3, mask_input=mask_input, **options).module
    single = decoder_graph(mobile_sam, mask_input=mask_input, **options).module
    prompts = [slots_of(*PROMPTS[name]) for name in ("1 points", "a box", "a box and 4 points")]
    inputs = [torch.cat(parts) for parts in zip(*prompts, strict=True)]
    if mask_input:
        generator = torch.Generator().manual_seed(0)
        inputs += [10 * torch.randn(3, 1, 256, 256, generator=generator), torch.tensor([0.0, 1.0, 0.0])]
    together = run(many, cat_predictor, *inputs, channels_last=many.channels_last)
    for i in range(3):
        alone = run(single, cat_predictor, *(x[i : i + 1] for x in inputs), channels_last=many.channels_last)
        for found, wanted in zip(together, alone, strict=True):
            close(found[i : i + 1], wanted)


@pytest.mark.slow
@pytest.mark.parametrize("point_masks", [3, 4])
@pytest.mark.parametrize("score", ["iou", "stability"])
def test_the_mask_to_show_follows_the_common_rule(
    mobile_sam: Sam, cat_predictor: SamPredictor, score: str, point_masks: int
) -> None:
    """16 prompts all over the picture, every fourth with a box."""
    count = 16
    module = DecoderModule(
        mobile_sam, score=score, point_masks=point_masks, mask_input=False, channels_last=False, batch=count,
        folded=True,
    ).eval()  # fmt: skip
    rng = np.random.default_rng(0)
    coords = torch.as_tensor(rng.uniform(0, [1024, 681], (count, DEFAULT_SLOTS, 2)), dtype=torch.float32)
    labels = torch.tensor([[1, 1, 0, -1, -1, -1] if i % 2 else [1, -1, -1, -1, -1, -1] for i in range(count)]).float()
    coords[::4, 4:] = torch.tensor([[60.0, 0.0], [900.0, 650.0]])
    labels[::4, 4:] = torch.tensor([2.0, 3.0])
    masks, scores, best, best_score = run(module, cat_predictor, coords, labels)
    chosen = [best_mask(scores[i].numpy(), has_box=i % 4 == 0, point_masks=point_masks) for i in range(count)]
    assert len(set(chosen)) > 2
    for i, index in enumerate(chosen):
        close(best[i, 0], masks[i, index], 0)
        close(best_score[i, 0], scores[i, index], 0)
    if score == "stability":
        close(scores, stability_score(masks.numpy()))


def small_inputs(slots: int = DEFAULT_SLOTS, *, box: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of a 512-pixel decoder: any embedding, and a point or a box."""
    embedding = torch.randn(1, 256, 32, 32, generator=torch.Generator().manual_seed(0))
    prompt = ([], [], BOX) if box else (POINTS[:1], LABELS[:1], None)
    return embedding, *slots_of(*prompt, slots=slots, side=512)


@pytest.mark.parametrize(("architecture", "first"), [("edge-sam", 0), ("mobile-sam", 1)])
@pytest.mark.parametrize("score", ["iou", "stability"])
@torch.no_grad()
def test_equal_scores_give_the_first_mask_that_competes(
    constant_model: Callable[..., Sam], architecture: str, first: int, score: str
) -> None:
    model = constant_model(architecture, (10, 20, 30, 40))
    module = decoder_graph(model, score=score).module
    for box in (False, True):
        _, scores, best, best_score = module(*small_inputs(box=box))
        assert len(set(scores[0].tolist())) == 1
        wanted = 0 if box else first
        close(best, torch.full((1, 1, 128, 128), 10.0 + 10 * wanted))
        close(best_score, scores[:, :1], 0)


@pytest.mark.parametrize(("architecture", "first"), [("edge-sam", 0), ("mobile-sam", 1)])
@torch.no_grad()
def test_empty_masks_score_zero(constant_model: Callable[..., Sam], architecture: str, first: int) -> None:
    """The published score divides zero by zero here, and NaN wins every comparison of some runtimes."""
    module = decoder_graph(constant_model(architecture, (-20, -30, -40, -50)), score="stability").module
    for box in (False, True):
        masks, scores, best, best_score = module(*small_inputs(box=box))
        assert (masks < -19).all()
        assert scores.tolist() == [[0, 0, 0, 0]] and best_score.tolist() == [[0]]
        close(best, torch.full((1, 1, 128, 128), -20.0 - 10 * (0 if box else first)))


@pytest.mark.parametrize("architecture", ["edge-sam", "mobile-sam"])
@torch.no_grad()
def test_a_mask_beats_empty_ones(constant_model: Callable[..., Sam], architecture: str) -> None:
    module = decoder_graph(constant_model(architecture, (-20, -0.5, 5, -30)), score="stability").module
    _, scores, best, best_score = module(*small_inputs())
    assert scores.tolist() == [[0, 0, 1, 0]] and best_score.tolist() == [[1]]
    close(best, torch.full((1, 1, 128, 128), 5.0))


@pytest.mark.parametrize(("architecture", "point_masks"), [("edge-sam", 4), ("mobile-sam", 3)])
def test_any_scores_choose_as_the_common_rule_does(
    constant_model: Callable[..., Sam], architecture: str, point_masks: int
) -> None:
    """Scores a hundredth of a percent or more apart, or equal; the IoU head may leave [0, 1] a little."""
    model = constant_model(architecture, (10, 20, 30, 40))
    module = decoder_graph(model, score="iou").module
    inputs = {box: small_inputs(slots=2, box=box) for box in (False, True)}

    @settings(max_examples=40)
    @given(scores=st.lists(st.integers(-100, 10_100), min_size=4, max_size=4), box=st.booleans())
    def choose(scores: list[int], box: bool) -> None:
        wanted = torch.tensor(scores) / 10_000
        with torch.no_grad():
            module.iou_head.layers[-1].bias.copy_(wanted)
            _, found, best, best_score = module(*inputs[box])
        assert torch.equal(found[0], wanted)
        index = best_mask(wanted.numpy(), has_box=box, point_masks=point_masks)
        close(best, torch.full((1, 1, 128, 128), 10.0 + 10 * index))
        assert best_score.item() == wanted[index]

    choose()


@torch.no_grad()
@pytest.mark.parametrize("folded", [False, True])
def test_one_slot_is_enough_for_a_point(small_standin: Sam, folded: bool) -> None:
    """At 512 pixels, against the same decoder with six slots and against the prompt encoder and mask decoder."""
    one = decoder_graph(small_standin, slots=1, folded=folded)
    assert one.inputs[1].shape == (1, 1, 2) and one.inputs[2].shape == (1, 1)
    embedding, coords, labels = small_inputs(slots=1)
    encoder = small_standin.prompt_encoder
    sparse, dense = encoder((coords, labels), None, None)
    wanted, _ = small_standin.mask_decoder(embedding, encoder.get_dense_pe(), sparse, dense, 4)
    close(one.module(embedding, coords, labels)[0], wanted, 1e-4)
    close(decoder_graph(small_standin, folded=folded).module(*small_inputs())[0], wanted, 1e-4)


@pytest.mark.parametrize(("architecture", "score"), [("edge-sam", "stability"), ("mobile-sam", "iou")])
def test_the_score_follows_the_architecture_unless_chosen(
    constant_model: Callable[..., Sam], architecture: str, score: str
) -> None:
    model = constant_model(architecture, (1, 1, 1, 1))
    assert decoder_graph(model).module.score == score
    for chosen in ("iou", "stability"):
        graph = decoder_graph(model, score=chosen)
        assert graph.module.score == chosen
        assert graph.outputs[1].meaning.startswith(chosen)


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{}, {"mask_input": True, "prompts": 2}, {"channels_last": True, "slots": 3}], ids=str
)
def test_the_ports_describe_the_graph(small_standin: Sam, options: dict[str, Any]) -> None:
    graph = decoder_graph(small_standin, **options)
    names = [port.name for port in graph.inputs]
    optional = ["mask_input", "has_mask_input"] if options.get("mask_input") else []
    assert names == ["image_embeddings", "point_coords", "point_labels", *optional]
    assert [port.name for port in graph.outputs] == ["masks", "scores", "best_mask", "best_score"]
    examples = graph.examples()
    assert [tuple(x.shape) for x in examples] == [port.shape for port in graph.inputs]
    answers = graph.module(*examples)
    assert [tuple(x.shape) for x in answers] == [port.shape for port in graph.outputs]
    assert {x.dtype for x in (*examples, *answers)} == {torch.float32}


@pytest.mark.parametrize("folded", [False, True])
def test_building_the_graph_leaves_the_model_alone(small_standin: Sam, folded: bool) -> None:
    """Packages are also built in the middle of a training run."""
    model = copy.deepcopy(small_standin).train()
    graph = decoder_graph(model, mask_input=True, folded=folded)
    assert not graph.module.training and not any(p.requires_grad for p in graph.module.parameters())
    assert all(module.training for module in model.modules())
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == []


def test_sines_are_right_to_a_millionth_over_many_turns(small_standin: Sam) -> None:
    """From float32 turns; rounding those, which the exact encoding does as well, is not the polynomial's."""
    turns = torch.linspace(-8, 8, 1_600_001)
    found = SlotEmbedding(small_standin.prompt_encoder)._sine(turns)
    exact = torch.sin(2 * torch.pi * turns.double())
    assert (found.double() - exact).abs().max() <= 1e-6


@torch.no_grad()
def test_slots_are_encoded_as_points_are(mobile_sam: Sam) -> None:
    """With the real matrix, as close to double precision as the prompt encoder itself in single precision."""
    encoder = mobile_sam.prompt_encoder
    coords = 1024 * torch.rand(1, 1000, 2, generator=torch.Generator().manual_seed(0))
    labels = (torch.arange(1000) % 2).float()[None]
    tokens, present, has_box = SlotEmbedding(encoder)(coords, labels)
    exact, _ = copy.deepcopy(encoder).double()((coords.double(), labels.double()), None, None)
    assert present.min() == 1 and not has_box.any()
    assert torch.equal(tokens[:, -1], exact[:, -1].float())
    error = (tokens - exact).abs().max()
    rounding = (encoder((coords, labels), None, None)[0] - exact).abs().max()
    assert error <= 2e-5 and error <= 2 * rounding


@torch.no_grad()
@pytest.mark.parametrize("side", [512, 768, 1024])
def test_positions_from_two_tables_are_those_of_the_whole_map(side: int) -> None:
    encoder = PromptEncoder(side)
    exact = copy.deepcopy(encoder).double().get_dense_pe().flatten(2).transpose(1, 2)
    for has_box in (0.0, 1.0):
        close(CellPositions(encoder)(torch.full((2, 1, 1), has_box)).double(), exact, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("options", "more"), OPS, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_the_exported_graph_has_no_unforeseen_operation(
    small_standin: Sam, options: dict[str, Any], more: set[str]
) -> None:
    graph = decoder_graph(small_standin, **options)
    nodes = torch.export.export(graph.module, graph.examples()).graph.nodes
    assert {str(node.target) for node in nodes if node.op == "call_function"} == COMMON_OPS | more
