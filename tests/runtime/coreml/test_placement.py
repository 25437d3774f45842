"""Which operations are estimated to leave the Neural Engine, and that no change adds to them unseen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bare_manifest import bare_manifest
from command_line import call, refusal
from mil_programs import save

from edgesam_mobile.package.manifest import write_manifest
from edgesam_mobile.runtime.coreml.placement import estimate
from edgesam_mobile.runtime.coreml.program import Operation, Program, Ref, TensorType, read_program

# Of encoder and decoder, by rules of thumb, not by a device. In half precision 31 operations on prompts are single,
# and 6 have a side of 65,536; in single precision all but casts fall back.
HALF = {"coreml-fp16": (0, 37), "executorch-coreml-fp16": (0, 6)}
FALLBACKS = {
    "mobile_sam_package": {**HALF, "coreml-fp32": (531, 303)},
    "edge_sam_package": {**HALF, "coreml-fp32": (215, 310)},
}


def made(kind: str, *shape: int | None, operation: str = "add") -> Operation:
    return Operation(operation, f"{operation} x", {}, (("x", TensorType(kind, shape)),))


@pytest.mark.parametrize(
    ("operation", "units", "reason"),
    [
        (made("fp16", 1, 3, 8, 8), 3, ""),
        (made("int8", 1, 3, 8, 8, operation="quantize"), 3, ""),
        (made("fp32", 1, 3, 8, 8), 2, "fp32"),
        (made("int32", 4), 2, "int32"),
        (made("fp16", 1, 3, None, 8), 2, "a side that is known only when run"),
        (made("fp16", 1, 20_000), 2, "a side of more than 16384"),
        (made("fp16", 1, 8, operation="gather"), 2, "the operation"),
        (made("fp16", 1, 1, 1, 1, 1, 1), 1, "6 sides"),
    ],
)
def test_an_operation_is_placed_by_type_shape_and_kind(operation: Operation, units: int, reason: str) -> None:
    (placed,) = estimate(Program("CoreML6", {}, ("x",), (operation,))).operations
    assert (len(placed.units), placed.reason) == (units, reason)


def test_constants_are_no_operations_and_casts_no_fallbacks(tmp_path: Path) -> None:
    def body(mb: Any, x: Any) -> Any:
        return mb.cast(x=mb.add(x=mb.cast(x=x, dtype="fp16"), y=np.float16(1)), dtype="fp32")

    path = tmp_path / "model.mlpackage"
    save(path, body, np.ones((1, 4), np.float32))
    placement = estimate(read_program(path))
    assert [p.type for p in placement.operations] == ["cast", "add", "cast"]
    assert placement.counts() == {"ANE": 1, "GPU": 3, "CPU": 3, "fallbacks": 0}


@pytest.mark.parametrize(
    ("given", "units", "reason"),
    [
        (TensorType("fp32", (1, 8)), 2, "fp32"),
        (TensorType("fp16", (1, 20_000)), 2, "a side of more than 16384"),
        (TensorType("fp16", (1, None)), 2, "a side that is known only when run"),
        (TensorType("fp16", (1, 1, 1, 1, 1, 8)), 1, "6 sides"),
        (TensorType("fp16", (1, 8)), 3, ""),
    ],
)
def test_an_operation_is_placed_by_what_it_takes_too(given: TensorType, units: int, reason: str) -> None:
    """Constants left out: whole numbers that say along which side are converted in advance."""
    axes = Operation("const", "axes", {}, (("axes", TensorType("int32", (1,))),))
    inputs = {"x": (Ref("x"),), "axes": (Ref("axes"),)}
    mean = Operation("reduce_mean", "mean", inputs, (("y", TensorType("fp16", (1, 1))),))
    (placed,) = estimate(Program("CoreML6", {"x": given}, ("y",), (axes, mean))).operations
    assert (len(placed.units), placed.reason) == (units, reason)


@pytest.fixture
def half_doubled(tmp_path: Path) -> Path:
    """A package whose graphs double a number in single precision and add to it in half precision."""

    def body(mb: Any, x: Any) -> Any:
        half = mb.cast(x=mb.mul(x=x, y=np.float32(2), name="doubled"), dtype="fp16", name="half")
        return mb.cast(x=mb.add(x=half, y=np.float16(1), name="more"), dtype="fp32", name="single")

    save(tmp_path / "model.mlpackage", body, np.ones((1, 4), np.float32)).rename(tmp_path / "nothing")
    write_manifest(tmp_path, bare_manifest("0" * 64))
    return tmp_path


def test_every_operation_has_a_row_and_fallbacks_are_named(half_doubled: Path) -> None:
    told = json.loads(call("placement", half_doubled, "--json").stdout)
    assert told["schema"] == "edgesam.placement/1" and [g["graph"] for g in told["graphs"]] == ["encoder", "decoder"]
    for graph in told["graphs"]:
        assert graph["operations"] == len(graph["placed"]) == 4
        assert [(p["operation"], p["type"], p["units"], p["reason"], p["fallback"]) for p in graph["placed"]] == [
            ("mul doubled", "mul", ["GPU", "CPU"], "fp32", True),
            ("cast half", "cast", ["GPU", "CPU"], "fp32", False),
            ("add more", "add", ["ANE", "GPU", "CPU"], "", False),
            ("cast single", "cast", ["GPU", "CPU"], "fp32", False),
        ]
        assert graph["fallbacks"] == [{"operation": "mul doubled", "reason": "fp32"}]


def test_each_prints_the_rows_and_nothing_else_does(half_doubled: Path) -> None:
    shown = [line.split() for line in call("placement", half_doubled, "--each").stdout.splitlines()]
    named = [line for line in shown if "fallback" in line]
    assert named == 2 * [["fallback", "mul", "doubled", "GPU,", "CPU", "fp32"]]
    assert shown.count(["add", "more", "ANE,", "GPU,", "CPU"]) == 2
    short = call("placement", half_doubled).stdout
    assert "coreml-fp32" in short and "doubled" not in short


@pytest.mark.slow
@pytest.mark.parametrize("model", FALLBACKS)
def test_every_artefact_has_the_fallbacks_it_had(model: str, request: pytest.FixtureRequest) -> None:
    """Those of compressed artefacts: ``test_small_mobile_sam.py``."""
    package: Path = request.getfixturevalue(model)
    told = call("placement", package, "--json")
    assert told.exit_code == 0, told.output
    found: dict[str, dict[str, int]] = {}
    for entry in json.loads(told.stdout)["graphs"]:
        found.setdefault(entry["artefact"], {})[entry["graph"]] = entry["counts"]["fallbacks"]
    assert {name: (graphs["encoder"], graphs["decoder"]) for name, graphs in found.items()} == FALLBACKS[model]
    assert "estimate" in call("placement", package).stdout


def test_a_package_without_core_ml_is_one_line(tmp_path: Path) -> None:
    assert "is not a package" in refusal(call("placement", tmp_path), 11)
