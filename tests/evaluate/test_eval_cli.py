"""``eval`` from the command line: results, going on after an interrupt, and refusals in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bare_manifest import bare_manifest
from command_line import call, entries, refusal
from data_sets import annotation, coco, jpeg
from package_copies import copy_package

from edgesam_mobile.deploy.formats import FORMATS
from edgesam_mobile.evaluate import subjects
from edgesam_mobile.evaluate.table import over_budget, parse_budget
from edgesam_mobile.files import sha256_of
from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.standin import write_standin
from edgesam_mobile.package.manifest import Accuracy, read_manifest, write_manifest
from edgesam_mobile.runtime import session

CAT = Path(__file__).resolve().parents[2] / "examples" / "cat.jpg"
GENERATED = ("--data", "generated:2", "--input-size", "256", "--prompts", "box", "--refine", "1", "--offline")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_standin("edge-sam-tiny", tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return coco(tmp_path / "set", [annotation(1, 1, (8, 8, 10, 40)), annotation(2, 2, (20, 20, 40, 40))])


def test_the_result_is_a_table_a_file_and_one_json_object(tiny: Path, tmp_path: Path) -> None:
    output, worst = tmp_path / "eval.json", tmp_path / "worst"
    told = call("eval", "--weights", tiny, *GENERATED, "-o", output, "--overlays", worst)
    assert told.exit_code == 0, told.output
    assert "untrained stand-in weights" in told.stderr
    assert "[2/2] generated-0-000001.png" in told.stderr
    data: dict[str, Any] = json.loads(output.read_text())
    assert (data["schema"], data["data"], data["protocol"]["mask"]) == (
        "edgesam.eval/1",
        "generated:2",
        "first mask token",
    )
    (entry,) = data["entries"]
    assert (entry["pictures"], entry["executed"], entry["ap"], list(entry["results"])) == (
        2,
        True,
        None,
        ["box", "box+1"],
    )
    assert entry["objects"] == entry["results"]["box"]["objects"] == sum(entry["sizes"].values()) > 0
    assert f"{100 * entry['results']['box']['miou']:.1f}" in told.stdout
    assert f"{entry['objects']} objects" in told.stdout
    assert len(list(worst.iterdir())) == len(entry["overlays"]) == min(12, entry["objects"])
    assert entries(tmp_path) == sorted(["eval.json", "worst", *(f"worst/{Path(p).name}" for p in entry["overlays"])])
    again = call("eval", "--weights", tiny, *GENERATED, "--json")
    assert json.loads(again.stdout)["entries"][0]["results"] == entry["results"]
    bare = call("eval", "--weights", tiny, *GENERATED, "--quiet")
    assert bare.stdout == f"pytorch {100 * entry['results']['box']['miou']:.1f}\n"


def test_an_interrupted_run_goes_on_and_another_is_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "eval.json"
    words = ("eval", "--weights", tiny, *GENERATED, "-o", output)
    with monkeypatch.context() as patch:
        patch.setattr("edgesam_mobile.evaluate.accuracy._line", lambda record, settings: 1 / 0)
        assert call(*words).exit_code == 1
    assert entries(tmp_path) == ["eval.json.pytorch.jsonl"]
    told = refusal(call(*words, "--seed", "1"), 12)
    assert "was left by another evaluation: settings differ" in told
    going_on = call(*words)
    assert "going on after 1 pictures" in going_on.stderr
    assert going_on.exit_code == 0
    assert entries(tmp_path) == ["eval.json"]


def test_ap_of_boxes_is_added(tiny: Path, folder: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([{"image_id": 1, "category_id": 1, "bbox": [8, 8, 10, 40], "score": 0.5}]))
    words = ("eval", "--weights", tiny, "--data", f"coco:{folder}", "--input-size", "256", "--prompts", "box")
    told = call(*words, "--refine", "0", "--boxes", boxes, "--json")
    data = json.loads(told.stdout)
    assert data["protocol"]["ap"] == "COCO's, by pycocotools' COCOeval"
    assert 0 <= data["entries"][0]["ap"]["ap"] <= 51 / 101
    assert "mask AP" in call(*words, "--refine", "0", "--boxes", boxes).stdout
    assert "--boxes does not go with generated:2" in refusal(
        call("eval", "--weights", tiny, *GENERATED, "--boxes", boxes), 2
    )
    boxes.write_text("[]")
    assert "no list of detections" in refusal(call(*words, "--boxes", boxes), 8)


def test_boxes_on_pictures_without_objects_give_ap_alone(
    tiny: Path, tiny_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch stands in for the artefact, which nothing can run."""
    subject = subjects.TorchSubject(load_model(tiny, image_size=256), "coreml-fp32")
    monkeypatch.setattr(subjects, "ArtifactSubject", lambda *_, **__: subject)
    boxes = tmp_path / "boxes.json"
    data = coco(tmp_path / "set", [annotation(1, 1, (8, 8, 20, 40), iscrowd=1)])
    boxes.write_text(json.dumps([{"image_id": 1, "category_id": 1, "bbox": [8, 8, 10, 40], "score": 0.5}]))
    words = ("eval", tiny_package, "--weights", tiny, "--data", f"coco:{data}", "--refine", "0", "--boxes", boxes)
    told = json.loads(call(*words, "--json").stdout)
    assert [(entry["subject"], entry["objects"]) for entry in told["entries"]] == [("pytorch", 0), ("coreml-fp32", 0)]
    assert "accuracy" not in told
    assert "mask AP" in call(*words).stdout
    for option in (("--budget", "miou_drop<=1"), ("--record",)):
        assert "for --budget or --record" in refusal(call(*words, *option), 8)
    assert read_manifest(tiny_package).accuracy is None


@pytest.fixture
def tiny_package(tiny: Path, tmp_path: Path) -> Path:
    """A package of the tiny student's with one artefact, which is no file."""
    package = tmp_path / "package"
    package.mkdir()
    changes = {"architecture": "edge-sam-tiny", "picture": {"size": 256, "pad_rgb": [0, 0, 0]}}
    write_manifest(package, bare_manifest(sha256_of(tiny), **changes))
    return package


ONE = ("--data", "generated:1", "--prompts", "box", "--refine", "0", "--offline")


def test_what_is_not_executed_keeps_no_budget_and_is_no_record(
    tiny: Path, tiny_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "runnable", lambda name: False)
    words = ("eval", tiny_package, "--weights", tiny, *ONE)
    assert "nothing to record" in refusal(call(*words, "--record"), 5)
    assert read_manifest(tiny_package).accuracy is None
    assert call(*words).exit_code == 0  # without a budget, not to be executed is no failure
    told = call(*words, "--budget", "miou_drop<=0")
    assert told.exit_code == 5
    assert "not held to the budget miou_drop<=0: coreml-fp32" in told.stderr
    assert "not executed" in told.stdout


def test_the_budget_on_record_holds_where_none_is_given(
    tiny: Path, tiny_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch stands in for the artefact, which nothing can run, and loses nothing or every mask."""
    model = load_model(tiny, image_size=256)
    monkeypatch.setattr(session, "runnable", lambda name: True)
    monkeypatch.setattr(subjects, "ArtifactSubject", lambda *_, **__: subjects.TorchSubject(model, "coreml-fp32"))
    words = ("eval", tiny_package, "--weights", tiny, *ONE)
    assert call(*words, "--budget", "miou_drop<=0.25", "--record").exit_code == 0
    assert call(*words, "--record").exit_code == 0
    table = read_manifest(tiny_package).accuracy
    assert table is not None and table.budget == 0.25
    for layer in model.mask_decoder.output_upscaling.parameters():
        layer.data.zero_()  # logits of 0: no pixel belongs to a mask
    told = call(*words)
    assert told.exit_code == 7
    assert "over the budget miou_drop<=0.25: coreml-fp32" in told.stderr
    assert call(*words, "--budget", "miou_drop<=100").exit_code == 0


def test_damaged_pictures_are_left_out_and_named(tiny: Path, folder: Path) -> None:
    (folder / "images" / "0001.jpg").write_bytes(jpeg()[:300])
    words = ("eval", "--weights", tiny, "--data", f"coco:{folder}", "--input-size", "256", "--refine", "0")
    told = call(*words, "--json")
    assert told.exit_code == 0
    assert "warning: 0001.jpg left out: not a picture that can be read" in told.stderr
    assert json.loads(told.stdout)["entries"][0]["corrupt"][0]["picture"] == "0001.jpg"
    (folder / "images" / "0001.jpg").unlink()
    assert "0001.jpg of 2 pictures not in" in refusal(call(*words), 8)


@pytest.mark.parametrize(
    ("words", "exit_code", "told"),
    [
        (("--data", "generated:2"), 2, "a package or --weights"),
        (("--weights", "mobile-sam", "--data", "generated:2", "--record"), 2, "go with a package"),
        (("out", "--data", "generated:2", "--budget", "iou<1"), 2, "no budget 'iou<1'"),
        (("out", "--input-size", "512", "--data", "generated:2"), 2, "go with --weights"),
        (("--weights", "mobile-sam", "--data", "generate:2"), 2, "did you mean generated:N"),
        (("--weights", "mobile-sam", "--data", "coco:absent"), 8, "no such file: absent"),
        (("--weights", "mobile-sam", "--data", "generated:2", "--prompts", "box,middle"), 2, "'middle'"),
        (("--weights", "mobile-sam", "--data", "generated:2", "--mask", "worst"), 2, "first or best"),
        (("--weights", "mobile-sam", "--data", "generated:2", "--device", "tpu"), 2, "no device 'tpu'"),
        (("--weights", "absent.pt", "--data", "generated:2"), 9, "absent.pt"),
        (("absent", "--data", "generated:2"), 11, "absent"),
        (("--weights", "mobile-sam", "--data", "generated:2", "--overlays", "file"), 2, "no folder"),
    ],
)
def test_bad_calls_are_refused_in_one_line(
    words: tuple[str, ...], exit_code: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert told in refusal(call("eval", *words), exit_code)
    assert entries(tmp_path) == ["file"]


@pytest.mark.slow
def test_artefacts_score_as_pytorch_does_and_what_has_no_runtime_is_not_executed(
    edge_sam_package: Path, standin_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "runnable", lambda name: name != "tflite")
    package = copy_package(edge_sam_package, tmp_path / "package", "onnx-fp32", "coreml-fp16", "tflite-fp32")
    words = ("--data", "generated:1", "--prompts", "box,centre", "--refine", "1", "--mask", "best", "--json")
    again, *artifacts, idle = json.loads(call("eval", package, *words).stdout)["entries"]
    (reference,) = json.loads(call("eval", "--weights", standin_file, *words).stdout)["entries"]
    assert (again["subject"], idle["subject"], idle["executed"]) == ("pytorch", "tflite-fp32", False)
    assert "results" not in idle
    assert {entry["subject"] for entry in artifacts} == {"onnx-fp32", "coreml-fp16"}
    for artifact in artifacts:
        for label, mean in artifact["results"].items():
            # The artefacts' up-sampling is bilinear, PyTorch's bicubic.
            assert mean["miou"] == pytest.approx(reference["results"][label]["miou"], abs=0.05)


@pytest.mark.slow
def test_the_table_goes_into_the_package_and_a_budget_decides(edge_sam_package: Path, tmp_path: Path) -> None:
    package = copy_package(edge_sam_package, tmp_path / "package", "onnx-fp32")
    words = ("--data", "generated:1", "--prompts", "box,centre", "--refine", "0")
    told = call("eval", package, *words, "--budget", "miou_drop<=0.5", "--record")
    assert told.exit_code == 0, told.output
    table = read_manifest(package).accuracy
    assert table is not None and table.budget == 0.5
    (row,) = table.rows
    assert (row.artifact, row.executed_by, list(row.miou)) == ("onnx-fp32", "ONNX Runtime", ["box", "centre"])
    assert row.same_best is not None and row.same_best >= 0.5
    assert abs(row.miou["box"] - table.reference["box"]) < 0.1
    card = (package / "MODEL_CARD.md").read_text()
    assert f"| onnx-fp32 | ONNX Runtime | {row.bytes / 1e6:.1f} | {row.miou['box']:.1f} (" in card
    assert "PyTorch" in told.stdout and "same best" in told.stdout
    assert call("verify", package, "--image", CAT).exit_code == 0  # the files are as they were


@pytest.mark.slow
def test_every_format_s_recommended_artefact_is_executed_and_evaluated(tiny: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    words = ("--weights", tiny, "--input-size", 256, "--target", "all", "--precision", "recommended")
    built = call("build", *words, "--calibration", "generated:1", "-o", package)
    assert built.exit_code == 0, built.output
    told = call("eval", package, "--weights", tiny, "--data", "generated:1", "--json")
    assert told.exit_code == 0, told.output
    data = json.loads(told.stdout)
    names = {f"{form}-recommended" for form in FORMATS}
    assert {entry["subject"] for entry in data["entries"]} == {"pytorch", *names}
    assert all(entry["executed"] and entry["objects"] > 0 for entry in data["entries"])
    assert {row["artifact"] for row in data["accuracy"]["rows"]} == names
    assert all(0 <= value <= 100 for row in data["accuracy"]["rows"] for value in row["miou"].values())


def test_an_artefact_over_its_budget_is_named() -> None:
    row = {"executed_by": "x", "bytes": 1, "boundary_iou": {}}
    rows = [{**row, "artifact": "good", "miou": {"box": 60.1}}, {**row, "artifact": "bad", "miou": {"box": 59.8}}]
    common = {"data": "d", "pictures": 1, "objects": 1, "protocol": {}, "measured": "", "reference": {"box": 60.5}}
    table = Accuracy.model_validate({**common, "budget": 0.5, "rows": rows})
    assert over_budget(table) == ["bad"]
    assert over_budget(table.model_copy(update={"budget": None})) == []
    assert parse_budget("miou_drop <= 1") == 1
