"""What a build puts into a package: every artefact, its true description, and no operation that phones reject."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from command_line import call, entries
from op_types_snapshot import grown, rejected, types_of

from edgesam_mobile.deploy.build import build
from edgesam_mobile.deploy.options import BuildOptions
from edgesam_mobile.evaluate.metrics import cosine, mask_iou, max_abs_error
from edgesam_mobile.files import sha256_of, size_of
from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.predictor import SamPredictor
from edgesam_mobile.model.proposals import ProposalHead, Stages, write_proposals
from edgesam_mobile.model.standin import write_standin
from edgesam_mobile.package.card import model_card
from edgesam_mobile.package.manifest import GraphRecord, Manifest, check_file, read_manifest
from edgesam_mobile.runtime.predictor import ArtifactPredictor
from edgesam_mobile.weights.checkpoint import Metadata

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"mobile-sam": "mobile_sam_package", "edge-sam": "edge_sam_package"}
SUFFIXES = {
    "coreml-fp16": ".mlpackage",
    "coreml-fp32": ".mlpackage",
    "executorch-coreml-fp16": ".pte",
    "tflite-fp32": ".tflite",
    "tflite-fp16": ".tflite",
    "executorch-xnnpack-fp32": ".pte",
    "onnx-fp32": ".onnx",
}
PARTS = ("encoder", "decoder")
# Bytes of a file over bytes of the graph's numbers in its precision.
RATIO = (1.0, 1.08)


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> Path:
    """Each of the two packages with all artefacts, not to be changed."""
    path: Path = request.getfixturevalue(PACKAGES[request.param])
    return path


def graphs(manifest: Manifest) -> dict[tuple[str, str], GraphRecord]:
    return {(a.id, part): getattr(a, part) for a in manifest.artifacts for part in PARTS}


@pytest.mark.slow
def test_a_package_holds_both_graphs_in_every_format_and_nothing_else(package: Path) -> None:
    manifest = read_manifest(package)
    assert [artifact.id for artifact in manifest.artifacts] == list(SUFFIXES)
    expected = {f"{name}/{part}{suffix}" for name, suffix in SUFFIXES.items() for part in PARTS}
    assert {record.path for record in manifest.files()} == expected
    found = {path.relative_to(package).as_posix() for path in package.glob("*/*")}
    assert found == expected
    assert {path.name for path in package.iterdir()} == {*SUFFIXES, "manifest.json", "MODEL_CARD.md"}


@pytest.mark.slow
def test_the_manifest_describes_the_files_and_the_card_the_manifest(package: Path) -> None:
    manifest = read_manifest(package)
    for record in manifest.files():
        assert check_file(package, record) == package / record.path
        assert record.bytes == size_of(package / record.path)
    assert (package / "MODEL_CARD.md").read_text(encoding="utf-8") == model_card(manifest)
    assert manifest.tools.keys() >= {"python", "torch", "coremltools", "executorch", "litert-torch", "onnx"}
    assert "absent" not in manifest.tools.values()


@pytest.mark.slow
def test_no_file_of_a_package_names_a_path_of_the_machine_that_built_it(package: Path) -> None:
    paths = [path.encode() for path in (str(ROOT), sys.prefix, str(package.parent), '", line ')]
    for file in (path for path in package.rglob("*") if path.is_file()):
        content = file.read_bytes()
        assert [path for path in paths if path in content] == [], file


@pytest.mark.slow
def test_the_manifest_says_what_was_asked_for(
    mobile_sam_package: Path, edge_sam_package: Path, mobile_sam_path: Path, standin_file: Path
) -> None:
    real, untrained = read_manifest(mobile_sam_package), read_manifest(edge_sam_package)
    assert (real.model, real.architecture, real.upsample) == ("mobile-sam", "mobile-sam", None)
    assert (real.weights.sha256, real.weights.trained) == (sha256_of(mobile_sam_path), True)
    assert (real.weights.licence, real.weights.commercial_use) == ("Apache-2.0", True)
    assert (real.mask.score, real.mask.point_masks) == ("iou", 3)
    assert (untrained.architecture, untrained.upsample) == ("edge-sam", "bilinear")
    assert (untrained.weights.sha256, untrained.weights.trained) == (sha256_of(standin_file), False)
    assert untrained.weights.upsample == "bicubic"
    assert (untrained.mask.score, untrained.mask.point_masks) == ("stability", 4)
    for manifest in (real, untrained):
        assert (manifest.picture.size, manifest.mask.low_resolution) == (1024, 256)
        assert (manifest.prompt.slots, manifest.prompt.prompts_per_call, manifest.prompt.mask_input) == (6, 1, False)


@pytest.mark.slow
def test_files_are_as_large_as_their_numbers(package: Path) -> None:
    """A converter that finds a branch multiplied by zero folds it away: then a file is too small.

    One that spreads TinyViT's attention biases ahead makes it too large.
    """
    manifest = read_manifest(package)
    ratios = {
        (name, part): graph.file.bytes / (graph.parameters * (2 if name.endswith("fp16") else 4))
        for (name, part), graph in graphs(manifest).items()
    }
    assert {key: ratio for key, ratio in ratios.items() if not RATIO[0] < ratio < RATIO[1]} == {}


@pytest.mark.slow
def test_no_artefact_gains_a_type_of_operation(package: Path) -> None:
    """If this fails, see ``op_types_snapshot.py``, which also writes the snapshot anew."""
    assert grown(package, read_manifest(package).architecture) == {}


@pytest.mark.slow
def test_no_artefact_holds_an_operation_that_accelerators_reject(package: Path) -> None:
    assert rejected_of(package) == []


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *[(name, True) for name in ("Sin", "COS", "GatherND", "GATHER_ND", "gather_along_axis", "ScatterElements")],
        *[(name, True) for name in ("index.Tensor", "NonZero", "non_zero", "NOT_EQUAL", "Equal", "GreaterOrEqual")],
        *[
            (name, True)
            for name in ("gt.Scalar", "eq.Tensor", "ge.Scalar (portable)", "Where", "SELECT_V2", "select")
        ],
        *[(name, True) for name in ("ARG_MAX", "argmax", "reduce_argmax", "TopK", "TOPK_V2", "OneHot", "one_hot")],
        *[(name, False) for name in ("slice_copy.Tensor", "select_copy.int", "Concat", "relu", "RESIZE_BILINEAR")],
        *[(name, False) for name in ("dim_order_ops::_clone_dim_order", "leaky_relu", "Min", "real_div", "squeeze")],
    ],
)
def test_operations_are_told_by_every_format_s_name_for_them(name: str, wrong: bool) -> None:
    assert rejected(name) is wrong


def rejected_of(package: Path) -> list[tuple[str, str, str]]:
    found = types_of(package)
    return [(n, p, t) for n, parts in found.items() for p, types in parts.items() for t in types if rejected(t)]


@pytest.mark.slow
def test_prompts_stay_in_single_precision_where_core_ml_takes_halves(package: Path) -> None:
    """Half precision places a point up to a quarter of a pixel off."""
    decoder = read_manifest(package).artifact("coreml-fp16").decoder
    dtypes = {port.name: port.dtype for port in (*decoder.inputs, *decoder.outputs)}
    assert dtypes.pop("point_coords") == dtypes.pop("point_labels") == "float32"
    assert set(dtypes.values()) == {"float16"}


@pytest.fixture(scope="module")
def unusual(standin_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with every option changed, for Android and this machine."""
    target = tmp_path_factory.mktemp("unusual") / "p"
    options = ("--input-size", 512, "--slots", 2, "--prompts", 3, "--mask-input", "--image-dtype", "uint8")
    told = call(
        *("build", "--target", "android", "--target", "host", "--weights", standin_file, "-o", target, "--json"),
        *options,
    )
    assert told.exit_code == 0, told.output
    data = json.loads(told.stdout)
    assert (data["schema"], data["package"]) == ("edgesam.build/1", str(target))
    assert data["manifest"] == json.loads((target / "manifest.json").read_text())
    return target


@pytest.mark.slow
def test_unusual_options_reach_the_graphs(unusual: Path) -> None:
    manifest = read_manifest(unusual)
    assert [a.id for a in manifest.artifacts] == [
        "tflite-fp32", "tflite-fp16", "executorch-xnnpack-fp32", "onnx-fp32"
    ]  # fmt: skip
    for artifact in manifest.artifacts:
        last = artifact.format == "tflite"
        (image,) = artifact.encoder.inputs
        assert image.shape == ([1, 512, 512, 3] if last else [1, 3, 512, 512])
        assert image.dtype == ("uint8" if last else "float32")
        shapes = {port.name: port.shape for port in (*artifact.decoder.inputs, *artifact.decoder.outputs)}
        assert shapes == {
            "image_embeddings": [1, 32, 32, 256] if last else [1, 256, 32, 32],
            "point_coords": [3, 2, 2],
            "point_labels": [3, 2],
            "mask_input": [3, 1, 128, 128],
            "has_mask_input": [3],
            "masks": [3, 4, 128, 128],
            "scores": [3, 4],
            "best_mask": [3, 1, 128, 128],
            "best_score": [3, 1],
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tflite-fp32", "tflite-fp16", "executorch-xnnpack-fp32", "onnx-fp32"])
def test_unusual_options_still_give_pytorch_s_masks(
    name: str, unusual: Path, standin_file: Path, cat: npt.NDArray[np.uint8]
) -> None:
    reference = SamPredictor(load_model(standin_file, upsample="bilinear", image_size=512))
    reference.set_image(cat)
    artefact = ArtifactPredictor(unusual, name)
    artefact.set_image(cat)
    point: dict[str, Any] = {"point_coords": [[245, 140]], "point_labels": [1]}
    _, _, earlier = reference.predict(**point, num_multimask_outputs=1)
    prompts: list[dict[str, Any]] = [
        {"point_coords": [[245, 140], [20, 20]], "point_labels": [1, 0]},
        {"box": (28, 0, 400, 288)},
        {**point, "mask_input": earlier},
    ]
    filled = [artefact.prompt(**prompt) for prompt in prompts]
    together = {key: np.concatenate([one[key][:1] for one in filled]) for key in filled[0]}
    outputs = artefact.decoder.run({"image_embeddings": artefact.features, **together})
    for index, prompt in enumerate(prompts):
        masks, _, logits = reference.predict(num_multimask_outputs=4, **prompt)
        alone = artefact.decode(filled[index])
        assert max_abs_error(alone.masks, np.asarray(outputs["masks"][index])) < 1e-4
        # Unsigned bytes cannot hold the padding's exact colour: up to half a step is lost.
        assert cosine(alone.masks, logits) > 0.999
        full = artefact.transform.upscale_masks(alone.masks, cat.shape[:2]) > 0
        assert mask_iou(full, masks.astype(bool)) > 0.97


@pytest.mark.slow
def test_neither_a_mask_input_nor_a_batch_adds_an_operation(unusual: Path) -> None:
    """Beyond those they are known to add."""
    assert grown(unusual, "unusual") == {}
    assert rejected_of(unusual) == []


@pytest.mark.slow
def test_neither_does_the_compression_that_is_recommended_for_ios(tmp_path: Path) -> None:
    """The same exports as those of a command in the README, so they come from the cache where that has run."""
    options = BuildOptions("edge-sam-open", targets=("ios",), precisions=("recommended",))
    package = build(options, tmp_path / "p").package
    assert grown(package, "recommended") == {}
    assert rejected_of(package) == []


@pytest.mark.slow
def test_a_build_for_one_target_and_precision_makes_just_these(standin_file: Path, tmp_path: Path) -> None:
    """The same exports as in the full build, so they come from the cache where that has run."""
    options = BuildOptions(str(standin_file), targets=("ios",), precisions=("fp16",))
    result = build(options, tmp_path / "p")
    assert [a.id for a in result.manifest.artifacts] == ["coreml-fp16", "executorch-coreml-fp16"]
    assert {path.name for path in (tmp_path / "p").iterdir()} == {
        "coreml-fp16", "executorch-coreml-fp16", "manifest.json", "MODEL_CARD.md"
    }  # fmt: skip
    assert entries(tmp_path)[0] == "p"


@pytest.mark.slow
def test_a_proposal_head_adds_a_third_graph(tmp_path: Path) -> None:
    weights = write_standin("edge-sam-tiny", tmp_path / "tiny.safetensors", image_size=256)
    model = load_model(weights)
    metadata = Metadata(architecture="edge-sam-tiny", licence="Apache-2.0", commercial_use=True)
    head = write_proposals(tmp_path / "head.safetensors", ProposalHead(Stages(model).widths), metadata)
    options = ("--weights", weights, "--proposals", head, "--target", "host", "--mask-input", "--prompts", 3)
    told = call("build", *options, "-o", tmp_path / "p")
    assert told.exit_code == 0, told.output
    assert "proposals MB" in told.stdout
    manifest = read_manifest(tmp_path / "p")
    assert manifest.prior is not None and manifest.prior.sha256 == sha256_of(head)
    (artefact,) = manifest.artifacts
    assert list(artefact.graphs()) == ["encoder", "decoder", "proposals"]
    assert (tmp_path / "p" / artefact.graphs()["proposals"].file.path).is_file()
    assert "Granularity prior" in (tmp_path / "p" / "MODEL_CARD.md").read_text()
    verified = call("verify", tmp_path / "p", "--json")
    assert verified.exit_code == 0, verified.output
    check = json.loads(verified.stdout)["checks"][0]
    # On each of two pictures: six probes, one with a mask, three rows at once, one on the proposals' embedding.
    assert check["answers"] == check["best_same"] == 2 * (6 + 1 + 3 + 1)
    assert "its proposals were not compared" in check["note"]
