"""The search for layers to leave out of a compression: what it ranks, keeps, goes on from and chooses."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from command_line import call, refusal

from edgesam_mobile.cli.quantize import _row, _write
from edgesam_mobile.deploy.encoder import encoder_graph
from edgesam_mobile.deploy.formats import FORMATS
from edgesam_mobile.deploy.options import BuildOptions
from edgesam_mobile.deploy.ports import Graph
from edgesam_mobile.deploy.precision import Plan
from edgesam_mobile.errors import WeightsError
from edgesam_mobile.evaluate.calibration import calibration_set
from edgesam_mobile.evaluate.journal import Journal
from edgesam_mobile.evaluate.quantise import Candidate, Masks, Search, blocks, search, steps
from edgesam_mobile.model.standin import untrained_model, write_standin


@pytest.fixture(scope="module")
def graph() -> Graph:
    return encoder_graph(untrained_model("edge-sam-tiny", image_size=256))


class Pretended:
    """Stands for measured masks: each block in integers costs what is said here, times are 10 ms and less a block."""

    def __init__(self, graph: Graph, costs: Mapping[str, float]) -> None:
        self.graph, self.costs = graph, costs
        self.asked: list[str] = []

    def measure(self, plans: Mapping[str, Plan]) -> list[Candidate]:
        self.asked += plans
        found = []
        for step, plan in plans.items():
            inside = [b for b in blocks(self.graph) if b not in plan.left_out]
            damage = sum(self.costs.get(b, 0.001) for b in inside)
            found.append(Candidate(step, plan, 1000 - len(inside), damage, 1.0, 10 - 0.1 * len(inside)))
        return found


def test_blocks_are_whole_and_cover_every_layer(graph: Graph) -> None:
    from edgesam_mobile.deploy.layers import layer_names, within

    found = blocks(graph)
    assert len(found) == len(set(found)) > 5
    assert all(sum(within(layer, [b]) for b in found) == 1 for layer in layer_names(graph))


def test_the_worst_blocks_are_left_out_until_the_budget_is_kept(graph: Graph) -> None:
    first, second = blocks(graph)[3], blocks(graph)[1]
    masks = cast("Masks", Pretended(graph, {first: 0.2, second: 0.1}))
    found = search(masks, "int8", budget=5)
    assert [c.step for c in found.sensitivity[:2]] == [first, second]
    assert found.chosen is not None and found.chosen.plan.left_out == (first, second)
    assert "within 5" in found.chosen.plan.reason
    assert [c.step for c in found.tried][:3] == ["0 left out", "1 left out", "2 left out"]
    damages = [c.damage for c in found.front()]
    assert damages == sorted(damages, reverse=True)
    assert search(masks, "int8", budget=0.05).chosen is None


@pytest.mark.parametrize("enough", [0, 1, 3, 5, 6, 7, 11])
def test_no_more_blocks_are_left_out_than_the_budget_needs(graph: Graph, enough: int) -> None:
    """Found by halving, where one more and one fewer were both tried."""
    bad = blocks(graph)[:enough]
    pretended = Pretended(graph, {block: 0.5 - 0.01 * n for n, block in enumerate(bad)})
    found = search(cast("Masks", pretended), "int8", budget=5)
    assert found.chosen is not None and found.chosen.plan.left_out == tuple(bad)
    counts = [len(candidate.plan.left_out) for candidate in found.tried]
    assert counts == sorted(set(counts)) and set(counts) >= {0, enough, max(enough - 1, 0)}
    assert len(pretended.asked) == len(set(pretended.asked)) <= steps(graph)


def test_where_nearly_all_blocks_must_stay_that_is_tried_as_well(graph: Graph) -> None:
    names = blocks(graph)
    found = search(cast("Masks", Pretended(graph, dict.fromkeys(names[1:], 0.1))), "int8", budget=0.2)
    assert found.chosen is not None and found.chosen.plan.left_out == tuple(names[1:])
    everywhere = Pretended(graph, dict.fromkeys(names, 0.1))
    nothing = search(cast("Masks", everywhere), "int8", budget=0.2)
    assert nothing.chosen is None and len(nothing.tried[-1].plan.left_out) == len(names) - 1
    assert len(everywhere.asked) <= steps(graph)


def test_what_is_left_out_can_take_another_precision(graph: Graph) -> None:
    first = blocks(graph)[3]
    masks = cast("Masks", Pretended(graph, {first: 0.2}))
    found = search(masks, "palette4", budget=5, instead="palette6")
    assert found.chosen is not None
    assert (found.chosen.plan.left_out, found.chosen.plan.instead) == ((first,), "palette6")
    assert found.tried[0].plan == Plan("palette4")  # nothing is left out
    assert all(c.plan.instead == "palette6" for c in found.sensitivity)
    assert len({Plan("int8", ("a",)).key, Plan("int8", ("a",), instead="palette6").key}) == 2


def test_the_objective_decides_among_what_keeps_the_budget() -> None:
    def one(step: str, size: int, damage: float, took: float) -> Candidate:
        return Candidate(step, Plan("int8"), size, damage, 1.0, took)

    small, quick, beaten = one("small", 1, 0.3, 9.0), one("quick", 2, 0.2, 1.0), one("beaten", 3, 0.4, 10.0)
    assert Search("size", [], [beaten, quick, small], None).front() == [small, quick]
    assert Search("latency", [], [beaten, quick, small], None).front() == [quick]


def test_a_search_goes_on_where_it_stopped(graph: Graph, tmp_path: Path) -> None:
    masks = Pretended(graph, {})
    with Journal(tmp_path / "candidates.jsonl", {"run": 1}) as journal:
        whole = search(cast("Masks", masks), "int8", budget=5, journal=journal)
    lines = (tmp_path / "candidates.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "candidates.jsonl").write_text("".join(lines[:4]))
    again = Pretended(graph, {})
    with Journal(tmp_path / "candidates.jsonl", {"run": 1}) as journal:
        assert search(cast("Masks", again), "int8", budget=5, journal=journal) == whole
    assert len(again.asked) == len(masks.asked) - 3


def test_a_found_plan_takes_the_place_of_one_of_its_precision() -> None:
    plan = Plan("int8", ("encoder.x",), "found")
    options = BuildOptions("edge-sam-open", precisions=("int8",), plans={("tflite", "encoder"): plan})
    assert options.plan(FORMATS["tflite"], "int8", "encoder") == plan
    assert options.plan(FORMATS["tflite"], "int8", "decoder") == Plan("int8")
    assert options.plan(FORMATS["tflite"], "fp16", "encoder") == Plan("fp16")
    assert options.plan(FORMATS["onnx"], "int8", "encoder") == Plan("int8")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--format", "tf"), "tf does not offer int8"),
        (("--format", "coreml", "--precision", "int4"), "coreml: int8-weights"),
        (("--budget", "1"), "no budget '1'"),
        (("--instead", "palette6"), "layers that tflite leaves out cannot be palette6"),
        (("--format", "coreml", "--precision", "palette6", "--instead", "palette6"), "cannot be palette6"),
        (("--precision", "int8-weights"), "tflite does not offer int8-weights to search"),
        (("--format", "executorch-xnnpack", "--precision", "fp16"), "executorch-xnnpack: int8, int8-dynamic"),
        (("--format", "coreml", "--objective", "latency"), "times say nothing"),
        (("--calibration-pictures", "0"), "at least 1, not 0"),
        (("--calibration-pictures", "-1"), "at least 1, not -1"),
    ],
)
def test_searches_that_cannot_be_are_refused(words: tuple[str, ...], told: str, tmp_path: Path) -> None:
    assert told in refusal(call("quantize", "-o", tmp_path / "s", *words), 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        None,
        "nonsense",
        "{}",
        json.dumps({"format": "tflite", "plan": {"precision": "int8"}}),
        json.dumps({"format": "x", "part": "encoder", "plan": {"precision": "int8"}}),
        json.dumps({"format": "tflite", "part": "encoder", "plan": {"precision": "int8", "instead": "palette6"}}),
    ],
)
def test_a_file_that_is_no_plan_is_refused(content: str | None, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    if content is not None:
        plan.write_text(content)
    told = refusal(call("build", "--precision", "int8", "--plan", plan, "-o", tmp_path / "p"), 2)
    assert str(plan) in told


def test_plans_that_would_do_nothing_here_are_refused(tmp_path: Path) -> None:
    """Of a precision that takes all layers or none; and one that was found for other weights."""
    path, weights = tmp_path / "plan.json", write_standin("edge-sam-tiny", tmp_path / "tiny.safetensors")

    def told(form: str, plan: Plan) -> str:
        path.write_text(json.dumps({"format": form, "part": "encoder", "plan": plan.to_json()}))
        words = ("--target", "host", "--precision", plan.precision, "--plan", path, "--weights", weights)
        return refusal(call("build", *words, "-o", tmp_path / "p"), 2)

    def named(precision: str, *plans: Path, target: str = "host") -> str:
        words = [word for one in plans for word in ("--plan", one)]
        return refusal(call("build", "--target", target, "--precision", precision, *words, "-o", tmp_path / "p"), 2)

    path.write_text(json.dumps({"format": "onnx", "part": "encoder", "plan": Plan("int8").to_json()}))
    assert "the onnx encoder in int8 would do nothing" in named("fp32", path)
    assert "the onnx encoder in int8 would do nothing" in named("int8", path, target="android")
    assert "two plans for the same graph" in named("int8", path, path)
    assert "onnx leaves no layer out of int8-weights" in told("onnx", Plan("int8-weights", ("encoder.neck",)))
    assert "the plan is for mobile-sam, the weights are edge-sam-tiny" in told(
        "onnx", Plan("int8", ("encoder.neck",), architecture="mobile-sam")
    )


def test_a_search_that_finds_nothing_leaves_no_earlier_plan(tmp_path: Path) -> None:
    """Of a looser budget: it would pass for this one's."""
    about = {"architecture": "edge-sam", "format": "onnx", "part": "encoder"}
    tried = Candidate("0 left out", Plan("int8"), 1000, 0.1, 1.0, None)
    _write(tmp_path, about, Search("size", [], [tried], tried))
    assert json.loads((tmp_path / "plan.json").read_text())["plan"]["architecture"] == "edge-sam"
    _write(tmp_path, about, Search("size", [], [tried], None))
    assert not (tmp_path / "plan.json").exists() and (tmp_path / "search.json").exists()


def test_weights_that_overflow_are_no_reference(tmp_path: Path) -> None:
    """Beside masks that are empty, whatever is compressed would lose nothing."""
    model = untrained_model("edge-sam-tiny", image_size=256)
    pictures, _ = calibration_set("generated:1", 1)
    next(model.mask_decoder.output_upscaling.parameters()).data.fill_(float("nan"))
    with pytest.raises(WeightsError, match="of the decoder answers sample 1 with NaN"):
        Masks(model, FORMATS["tflite"], pictures, tmp_path)
    first = next(model.image_encoder.parameters())
    first.data.fill_(1e38)
    with pytest.raises(WeightsError, match="of the encoder answers sample 1 with NaN"):
        Masks(model, FORMATS["tflite"], pictures, tmp_path)


def test_a_candidate_without_a_time_is_told_and_kept_without_one() -> None:
    found = Candidate("0 left out", Plan("int8"), 1000, 0.1, 1.0, None)
    assert Candidate.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert _row(found, Search("size", [], [found], found))[2] == "–"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Warning. Enabling `experimental_preserve_all_tensors`")  # the quantiser's own
def test_a_real_search_writes_a_plan_that_builds(tmp_path: Path) -> None:
    weights = write_standin("edge-sam-tiny", tmp_path / "tiny.safetensors")
    words: tuple[Any, ...] = ("--weights", weights, "--input-size", "256", "--calibration", "generated:2")
    told = call("quantize", *words, "--budget", "miou_drop<=100", "-o", tmp_path / "s", "--objective", "latency")
    assert told.exit_code == 0, told.output
    assert {p.name for p in (tmp_path / "s").iterdir()} == {
        "candidates.jsonl",
        "search.json",
        "plan.json",
        "front.png",
    }
    plan = json.loads((tmp_path / "s" / "plan.json").read_text())
    assert (plan["format"], plan["part"], plan["plan"]["precision"]) == ("tflite", "encoder", "int8")
    assert plan["plan"]["architecture"] == "edge-sam-tiny"
    run = json.loads((tmp_path / "s" / "candidates.jsonl").read_text().splitlines()[0])
    assert len(run["sources"]) == 64
    assert run["tools"].keys() >= {"torch", "litert-torch", "ai-edge-quantizer"}  # others would measure otherwise
    build = call(
        "build", "--target", "android", "--precision", "int8", "--plan", tmp_path / "s" / "plan.json",
        *words, "-o", tmp_path / "p",
    )  # fmt: skip
    assert build.exit_code == 0, build.output
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
    pictures, _ = calibration_set("generated:2", 32)
    said = {"source": "generated:2", "pictures": 2, "prompts": pictures.prompts, "sha256": pictures.sha256}
    assert manifest["calibration"].items() >= said.items()
    assert "within 100" in " ".join(build.stdout.split())  # why, which the card says too
    assert pictures.sha256[:12] in (tmp_path / "p" / "MODEL_CARD.md").read_text()
    (artefact,) = [a for a in manifest["artifacts"] if a["format"] == "tflite"]
    assert artefact["encoder"]["quantisation"]["left_out"] == plan["plan"]["left_out"]


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Implicitly cleaning up:ResourceWarning"
)  # coremltools leaves that to the collector
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")  # coremltools' own
def test_decoders_are_searched_too_and_left_out_layers_take_more_bits(tmp_path: Path) -> None:
    """Palettes of Core ML: the sizes of all candidates lie between those of the two precisions."""
    model = untrained_model("edge-sam-tiny", image_size=256)
    pictures, _ = calibration_set("generated:1", 1)
    masks = Masks(model, FORMATS["coreml"], pictures, tmp_path, "decoder")
    block = blocks(masks.graph)[0]
    found = masks.measure(
        {
            "few bits": Plan("palette4"),
            "mixed": Plan("palette4", (block,), instead="palette6"),
            "mixed with integers": Plan("palette4", (block,), instead="int8-weights"),
            "more bits": Plan("palette6"),
            "plain": Plan("fp16"),
        }
    )
    sizes = [candidate.bytes for candidate in found]
    assert sizes == sorted(sizes) and len(set(sizes)) == len(sizes)
    assert all(candidate.run_ms is None for candidate in found)  # an interpreter's times say nothing
    damages = {candidate.step: candidate.damage for candidate in found}
    assert damages["plain"] < 0.01 and damages["plain"] <= damages["more bits"] <= damages["few bits"]
    assert found[-1].same_best == 1
    gc.collect()  # what coremltools leaves to it would warn in another test
