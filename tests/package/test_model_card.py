"""The card says what the manifest says, shouts what must not be overlooked and claims nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from manifest_samples import manifests, sample

from edgesam_mobile.package.card import model_card
from edgesam_mobile.package.manifest import Manifest


def card(**changes: Any) -> str:
    """The sample's card, with some fields of some sections changed."""
    whole = sample()
    for section, fields in changes.items():
        whole[section] |= fields
    return model_card(Manifest.model_validate(whole))


def front_matter(text: str) -> dict[str, Any]:
    matter: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return matter


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Every table row of a text as its cells."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_front_matter_is_what_the_hub_reads() -> None:
    matter = front_matter(card())
    assert matter == {
        "license": "apache-2.0",
        "library_name": "edgesam-mobile",
        "pipeline_tag": "mask-generation",
        "tags": ["segment-anything", "image-segmentation", "on-device", "coreml", "onnx", "mobile-sam"],
    }


@pytest.mark.parametrize(
    ("licence", "license_", "name"),
    [("S-Lab License 1.0", "other", "s-lab-license-1.0"), (None, "unknown", None), ("1.0", "other", "1.0")],
)
def test_licences_that_the_hub_does_not_know_keep_their_name(licence: str | None, license_: str, name: str) -> None:
    matter = front_matter(card(weights={"licence": licence}))
    assert (matter["license"], matter.get("license_name")) == (license_, name)


def test_trained_weights_for_any_use_bring_no_warning() -> None:
    text = card()
    assert "WARNING" not in text
    assert "- Weights: Apache-2.0\n- Code that built the package: Apache-2.0" in section(text, "Licence")


def test_weights_not_for_commercial_use_are_shouted() -> None:
    text = card(weights={"licence": "S-Lab License 1.0", "commercial_use": False})
    assert "> **NO COMMERCIAL USE**: the licence of the weights (S-Lab License 1.0) forbids" in text


def test_weights_of_unknown_terms_are_shouted() -> None:
    text = card(weights={"licence": None, "commercial_use": None})
    assert "- Weights: unknown" in text
    assert "> **COMMERCIAL USE UNKNOWN**" in text


def test_an_untrained_stand_in_is_shouted_before_anything_else() -> None:
    text = card(weights={"trained": False})
    note = text.index("> **UNTRAINED STAND-IN**: timing and structure only; masks mean nothing.")
    assert note < text.index("\n## ")


def test_preparation_prompts_and_outputs_are_given_as_the_manifest_has_them() -> None:
    text = card(mask={"score": "stability", "point_masks": 4})
    assert ["input", "1024 x 1024 pixels, RGB, values 0 to 255"] in rows(section(text, "Preparing a picture"))
    assert "pad_rgb is (123.675, 116.28, 103.53)" in text
    prompts = section(text, "Prompts")
    assert "5 slots a prompt, 1 prompt(s) a call" in prompts
    assert {"foreground": "1", "empty slot": "-1"}.items() <= dict(rows(prompts)[2:]).items()
    assert "fill unused slots with label -1" in prompts
    outputs = dict(rows(section(text, "Outputs")))
    assert outputs["masks"] == "logits, 256 x 256; inside where above 0"
    assert outputs["score"].startswith("stability")
    assert outputs["best mask"].endswith("`point_masks` is 4")


def test_every_file_has_a_row_with_its_size_and_hash() -> None:
    ios, host = ["coreml", "fp16", "ios", "iOS 16"], ["onnx", "fp32", "host", "–"]
    measured = ["12.3", "`0123456789ab`"]
    assert rows(section(card(), "Artefacts"))[2:] == [
        ["coreml-fp16", "encoder", *ios, "`ios/encoder.mlpackage`", *measured],
        ["coreml-fp16", "decoder", *ios, "`ios/decoder.mlpackage`", *measured],
        ["onnx-fp32", "encoder", *host, "`host/encoder.onnx`", *measured],
        ["onnx-fp32", "decoder", *host, "`host/decoder.onnx`", *measured],
    ]


def test_graphs_of_one_signature_share_a_table_and_others_have_their_own() -> None:
    whole = sample()
    whole["artifacts"][1]["encoder"]["inputs"][0] |= {"shape": [1, 1024, 1024, 3], "layout": "NHWC"}
    tensors = section(model_card(Manifest.model_validate(whole)), "Tensors")
    assert re.findall("### (.*)", tensors) == [
        "Encoder of `coreml-fp16`",
        "Decoder of `coreml-fp16`, `onnx-fp32`",
        "Encoder of `onnx-fp32`",
    ]
    assert ["in", "`picture`", "1 x 1024 x 1024 x 3", "float32", "NHWC", "colours 0..255"] in rows(tensors)
    assert ["out", "`masks`", "1 x 4 x 256 x 256", "float32", "BMHW", "logits"] in rows(tensors)


def test_provenance_names_weights_tools_and_commit() -> None:
    provenance = dict(rows(section(card(), "Provenance")))
    assert provenance["sha256 of the weights"] == f"`{'ab' * 32}`"
    assert provenance["torch"] == "2.13.0"
    assert provenance["up-sampling in the encoder here"] == "none"
    assert provenance["git"] == "`0123456`, with uncommitted changes"


def test_what_was_not_verified_is_said_and_no_figure_is_claimed() -> None:
    text = section(card(), "What was not verified")
    assert "**Running on a phone.**" in text
    assert "**Core ML on Apple's processors.**" in text
    assert "**Accuracy.**" in text and "**Speed.**" in text
    assert not re.search(r"\d+(\.\d+)? ?(ms|%|fps)|mIoU", card())


def test_what_is_compressed_is_said_with_its_reason_and_what_it_was_calibrated_on() -> None:
    assert "## Compression" not in card()
    whole = sample()
    small = {"precision": "int8", "weights": "int8, a scale a channel", "activations": "int8, calibrated"}
    whole["artifacts"][1]["encoder"]["quantisation"] = {**small, "left_out": ["neck", "stem"], "instead": "palette6"}
    whole["artifacts"][1]["decoder"]["quantisation"] = {**small, "reason": "masks | move"}
    used = {"source": "images:x", "pictures": 3, "views": 5, "prompts": 9, "sha256": "cd" * 32}
    text = section(model_card(Manifest.model_validate(whole | {"calibration": used})), "Compression")
    stored = ["int8, a scale a channel", "int8, calibrated"]
    assert rows(text)[2:] == [
        ["onnx-fp32", "encoder", *stored, "2 groups of layers, in palette6", "–"],
        ["onnx-fp32", "decoder", *stored, "–", r"masks \| move"],
    ]
    assert "measured on 3 picture(s) with 9 prompts in all, from images:x, sha256 `cdcdcdcdcdcd`" in text
    noise = model_card(Manifest.model_validate(whole | {"calibration": used | {"real": False}}))
    assert "measured on random numbers, which no photograph resembles" in noise


def test_a_recorded_accuracy_table_is_shown_with_what_each_artefact_loses() -> None:
    row = {"artifact": "tflite-fp16", "executed_by": "LiteRT", "bytes": 12_300_000, "boundary_iou": {}}
    table = {
        "data": "coco:x", "pictures": 2, "objects": 7, "protocol": {"mask": "first"}, "measured": "2026-01-02",
        "reference": {"box": 64.25, "centre": 35.0},
        "rows": [{**row, "miou": {"box": 64.0, "centre": 35.5}, "same_best": 0.975}],
    }  # fmt: skip
    text = model_card(Manifest.model_validate({**sample(), "accuracy": table}))
    assert "| tflite-fp16 | LiteRT | 12.3 | 64.0 (-0.2) | 35.5 (+0.5) | 97.5% |" in section(text, "Accuracy")
    assert "7 objects on 2 pictures of `coco:x`" in section(text, "Accuracy")
    assert "**Accuracy.**" not in section(text, "What was not verified")


def test_core_ml_is_not_mentioned_where_there_is_none() -> None:
    whole = sample()
    del whole["artifacts"][0]
    assert "Core ML" not in model_card(Manifest.model_validate(whole))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(manifests)
def test_no_manifest_breaks_the_front_matter_or_a_table(manifest: Manifest) -> None:
    text = model_card(manifest)
    assert front_matter(text)["pipeline_tag"] == "mask-generation"
    assert all(len(row) == 9 for row in rows(section(text, "Artefacts")))
    assert len(rows(section(text, "Provenance"))) == 9 + len(manifest.tools)
