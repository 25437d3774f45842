"""What is refused, in one line and without much memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mil_damage import (
    FLOAT16,
    FLOAT32,
    FOLDER,
    INT32,
    STRING,
    Change,
    block,
    change,
    constant,
    execute,
    function,
    operation,
    refusal,
    resize,
    retype,
    specification,
)
from mil_programs import save

from edgesam_mobile.runtime.coreml.interpreter import Interpreter
from edgesam_mobile.runtime.coreml.ops import linear, quantisation
from edgesam_mobile.runtime.coreml.package import LARGEST_SPECIFICATION
from edgesam_mobile.runtime.coreml.program import read_program
from edgesam_mobile.runtime.coreml.types import ProgramError


def test_the_program_is_sound_before_it_is_damaged(package: Path) -> None:
    program = read_program(package)
    assert program.opset == "CoreML6" and program.system == "iOS 16"
    assert [name for name in program.op_types() if name.startswith("constexpr")] == [
        "constexpr_affine_dequantize",
        "constexpr_lut_to_dense",
    ]
    first, second = execute(package).values()
    assert first.shape == (6, 6) and bool(first.isfinite().all())
    assert second.tolist() == [[1, 1, 1], [1, 1, 1]]


# -- one thing wrong


def opset(model: Any, name: str) -> None:
    function(model).opset = name


def misplace(model: Any, place: int) -> None:
    constant(model, "conv", "weight").attributes["val"].blobFileValue.offset = place


def point_at(model: Any, name: str) -> None:
    constant(model, "conv", "weight").attributes["val"].blobFileValue.fileName = name


def enlarge(model: Any, kind: str, parameter: str, *sides: int) -> None:
    found = constant(model, kind, parameter)
    resize(found.outputs[0].type, *sides)
    resize(found.attributes["val"].type, *sides)


def first_to_the_end(model: Any) -> None:
    operations = block(model).operations
    item = operation(model, "conv")
    moved = type(item).FromString(item.SerializeToString())
    operations.remove(item)
    operations.add().CopyFrom(moved)


def feed_back(model: Any) -> None:
    item = operation(model, "relu")
    item.inputs["x"].arguments[0].name = item.outputs[0].name


def make_twice(model: Any) -> None:
    operation(model, "relu").outputs[0].name = operation(model, "conv").outputs[0].name


def fill_with(model: Any, *sides: int) -> None:
    values = constant(model, "fill", "shape").attributes["val"].immediateValue.tensor.ints.values
    values[:] = sides
    resize(operation(model, "fill").outputs[0].type, *sides)
    del model.description.output[1].type.multiArrayType.shape[:]


def infinite_shape(model: Any) -> None:
    found = constant(model, "reshape", "shape")
    retype(found, FLOAT32)
    found.attributes["val"].immediateValue.tensor.floats.values[:] = [float("inf"), 4]


def axis_of_a_scalar(model: Any) -> None:
    item = operation(model, "squeeze")
    item.inputs["x"].arguments[0].name = constant(model, "softmax", "axis").outputs[0].name


def string_input(model: Any) -> None:
    function(model).inputs[0].type.tensorType.dataType = STRING


def input_sides(model: Any, *sides: int) -> None:
    resize(function(model).inputs[0].type, *sides)
    del model.description.input[0].type.multiArrayType.shape[:]


def input_that_is_a_list(model: Any) -> None:
    function(model).inputs[0].type.listType.type.tensorType.dataType = FLOAT32


def huge_immediate_of_nothing(model: Any) -> None:
    enlarge(model, "fill", "shape", 0, 1 << 62)
    del constant(model, "fill", "shape").attributes["val"].immediateValue.tensor.ints.values[:]


DAMAGE: dict[str, tuple[Change, str | None]] = {
    "an unknown set of operations": (
        lambda m: opset(m, "CoreML99"),
        "its set of operations is 'CoreML99'; known are",
    ),
    "a set without operations": (lambda m: opset(m, "CoreML7"), "no block for CoreML7"),
    "another function": (lambda m: m.mlProgram.functions.pop("main"), "no function 'main', only none"),
    "an unknown operation": (
        lambda m: setattr(operation(m, "relu"), "type", "warp"),
        r"^warp \S+: the operation warp is not supported",
    ),
    "an unknown parameter": (
        lambda m: setattr(operation(m, "relu").inputs["speed"].arguments.add(), "name", "x0"),
        r"^relu \S+: its parameter speed is not supported",
    ),
    "a missing parameter": (
        lambda m: operation(m, "conv").inputs.pop("weight"),
        "^conv conv: its parameter weight is missing",
    ),
    "a block inside": (lambda m: operation(m, "relu").blocks.add(), "control flow"),
    "a value before it is made": (first_to_the_end, "uses conv, which no operation before it makes"),
    "a circle": (feed_back, "which no operation before it makes"),
    "a value made twice": (make_twice, "conv is made twice"),
    "an output that nothing makes": (
        lambda m: block(m).outputs.append("nothing"),
        "its output nothing is made by no operation",
    ),
    "too few outputs": (
        lambda m: operation(m, "split").outputs.pop(),
        "which no operation before it makes|makes 2 values, the program declares 1",
    ),
    "another shape than declared": (
        lambda m: resize(operation(m, "relu").outputs[0].type, 1, 4, 8, 9),
        r"it is torch\.float32\[1, 4, 8, 8\], the program declares fp32\[1, 4, 8, 9\]",
    ),
    "another type than declared": (
        lambda m: setattr(operation(m, "relu").outputs[0].type.tensorType, "dataType", INT32),
        "the program declares int32",
    ),
    "shapes that do not fit": (lambda m: input_sides(m, 1, 5, 8, 8), "^conv conv: "),
    "another description": (
        lambda m: setattr(m.description.input[0], "name", "y"),
        r"it describes \['y'\], its function has \['x0'\]",
    ),
    "an unknown element type": (
        lambda m: setattr(operation(m, "relu").outputs[0].type.tensorType, "dataType", 12),
        "element type 12 is not supported",
    ),
    "a type of two ranks": (
        lambda m: setattr(operation(m, "relu").outputs[0].type.tensorType, "rank", 9),
        "a type of rank 9 with 4 sides",
    ),
    "an input that is a list": (input_that_is_a_list, "only tensors are supported, not listType"),
    "an input of text": (string_input, "string"),
    "an input of 4 GiB": (lambda m: input_sides(m, 1, 1 << 30), "more than 1 GiB is refused"),
    "an input with impossible sides": (lambda m: input_sides(m, 0, 1 << 62, 1 << 62), None),
    "a constant without a value": (
        lambda m: constant(m, "conv", "weight").attributes.pop("val"),
        "a constant without a value",
    ),
    "a constant of too many values": (
        lambda m: enlarge(m, "conv", "bias", 5),
        r"a constant of fp32\[5\] holds 4 values",
    ),
    "a constant of text": (lambda m: retype(constant(m, "conv", "bias"), STRING), "a string constant must hold one"),
    "a constant in the file of too many values": (
        lambda m: enlarge(m, "conv", "weight", 5, 3, 3, 3),
        r"weight\.bin at \d+: holds 432 bytes, the program wants 4320 bits",
    ),
    "a constant of 4 GiB": (lambda m: enlarge(m, "conv", "bias", 1 << 30), "more than 1 GiB is refused"),
    "a constant of 4 GiB in the file": (
        lambda m: enlarge(m, "conv", "weight", 1 << 15, 1 << 15),
        "more than 1 GiB is refused",
    ),
    "a constant of nothing with impossible sides": (huge_immediate_of_nothing, None),
    "a constant of another type": (
        lambda m: retype(constant(m, "conv", "weight"), FLOAT16),
        r"weight\.bin at \d+: holds fp32, the program wants fp16",
    ),
    "a constant that begins elsewhere": (lambda m: misplace(m, 8), "at 8: no constant begins there"),
    "a constant behind the end": (lambda m: misplace(m, 1 << 63), "reaches beyond the end of the file"),
    "a weight file outside": (lambda m: point_at(m, "@model_path/../../../secret"), "outside of the package"),
    "a weight file with a root": (lambda m: point_at(m, "@model_path//etc/passwd"), "outside of the package"),
    "a weight file of the working folder": (lambda m: point_at(m, "weights/weight.bin"), "outside of the package"),
    "a weight file that is missing": (lambda m: point_at(m, "@model_path/none"), "the weight file none is missing"),
    "a weight file that is a folder": (lambda m: point_at(m, "@model_path/weights"), "is missing"),
    "a weight file with no name": (lambda m: point_at(m, "@model_path/a\0b"), None),
    "a weight file with a long name": (lambda m: point_at(m, "@model_path/" + "a" * 5000), None),
    "a filled tensor of 4 GiB": (lambda m: fill_with(m, 1 << 15, 1 << 15), "^fill .*more than 1 GiB is refused"),
    "a shape that is infinite": (infinite_shape, "^reshape "),
    "an axis of a single number": (axis_of_a_scalar, "^squeeze "),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_program_with_one_thing_wrong_is_refused_in_one_line(what: str, copy: Path) -> None:
    (copy.parent / "secret").write_bytes(b"not for everyone")
    alter, reason = DAMAGE[what]
    assert len(refusal(change(copy, alter), reason)) < 1000


def grow(mb: Any, name: str, x: Any) -> Any:
    """Operations that make 4 GiB, or want them in between, of next to nothing."""
    many = 1 << 15
    one = np.ones((1, 1, 1, 1), np.float32)
    if name == "tile":
        return mb.tile(x=x, reps=[1, 1, many, many])
    if name == "add":
        tall = mb.tile(x=x, reps=[1, 1, many, 1])
        return mb.add(x=tall, y=mb.transpose(x=tall, perm=[0, 1, 3, 2]))
    if name == "matmul":
        tall = mb.tile(x=x, reps=[1, 1, many, 1])
        return mb.matmul(x=tall, y=tall, transpose_y=True)
    if name == "pad":
        return mb.pad(x=x, pad=[0, many, 0, many])
    if name == "upsample_bilinear":
        return mb.upsample_bilinear(x=x, scale_factor_height=many, scale_factor_width=many)
    if name == "conv":  # a far edge to step over
        return mb.conv(x=x, weight=one, pad_type="custom", pad=[0, many, 0, many - 1], strides=[many, many])
    tall = mb.tile(x=x, reps=[1, 1, 2, 2])  # two far corners, of which one is kept
    options = {"pad_type": "custom", "pad": [0, many, 0, many]}
    return mb.conv_transpose(x=tall, weight=one, strides=[many, many], **options)


@pytest.mark.parametrize("name", ["tile", "add", "matmul", "pad", "upsample_bilinear"])
def test_operations_that_would_make_4_gib_are_refused_before_they_do(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / "model.mlpackage", lambda mb, x: grow(mb, name, x), np.ones((1, 1, 1, 1), np.float32))
    assert refusal(path, "more than 1 GiB is refused").startswith(name)


@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
def test_operations_that_need_4_gib_in_between_are_refused_before_they_do(name: str, tmp_path: Path) -> None:
    x = np.ones((1, 1, 1, 1), np.float32)
    path = save(tmp_path / "model.mlpackage", lambda mb, x: grow(mb, name, x), x)
    assert refusal(path, "more than 1 GiB is refused").startswith(name)


@pytest.mark.parametrize(
    "shapes", [((1024, 1, 1, 4096), (1, 1024, 4096, 1)), ((1, 1024, 1, 4096), (1024, 1, 4096, 1))]
)
def test_operands_that_a_product_would_repeat_are_sized(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """16 MB each, and the answer 4 MB; in between, 16 GiB."""
    with pytest.raises(ProgramError, match="more than 1 GiB is refused"):
        linear.matmul(*(torch.empty(shape, device="meta") for shape in shapes))


def test_scores_of_attention_are_sized() -> None:
    few = torch.empty(1, 1 << 16, 1, device="meta")
    with pytest.raises(ProgramError, match="more than 1 GiB is refused"):
        linear.scaled_dot_product_attention(few, few, few)


def test_einsum_takes_two_tensors() -> None:
    square = torch.ones(2, 2)
    assert linear.einsum((square, square), "ij,jk->ik").tolist() == [[2, 2], [2, 2]]
    with pytest.raises(ProgramError, match="einsum of 3 tensors"):
        linear.einsum((square, square, square), "ij,jk,kl->il")


def test_scales_in_a_vector_need_an_axis() -> None:
    numbers, scales = torch.ones(2, 3, dtype=torch.int8), torch.ones(2)
    assert quantisation.dequantize(numbers, 2 * scales, axis=0).tolist() == [[2.0] * 3] * 2
    assert quantisation.dequantize(numbers, torch.tensor(0.5)).tolist() == [[0.5] * 3] * 2
    with pytest.raises(ProgramError, match="no axis"):
        quantisation.dequantize(numbers, scales)
    with pytest.raises(ProgramError, match="no axis"):
        quantisation.quantize(torch.ones(2, 3), scales, "int8")


# -- files


def root(path: Path, change_entry: Callable[[dict[str, Any]], None]) -> None:
    listing = path / "Manifest.json"
    manifest = json.loads(listing.read_text())
    change_entry(manifest)
    listing.write_text(json.dumps(manifest))


def entry(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
    return found


@pytest.mark.parametrize("name", ["../../outside.mlmodel", "../outside.mlmodel", "{absolute}", ".", "none", "link"])
def test_a_listing_that_leads_to_no_file_inside_is_refused(name: str, copy: Path) -> None:
    outside = copy.parent / "outside.mlmodel"
    for place in (outside, copy / "outside.mlmodel"):
        shutil.copy(specification(copy), place)
    (copy / "Data" / "link").symlink_to(outside)
    root(copy, lambda manifest: entry(manifest).update(path=name.format(absolute=outside)))
    assert "names no file inside the package" in refusal(copy, "Manifest.json")


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, 5, None, ["a"]])
def test_a_listing_with_a_name_that_is_none_is_refused(name: Any, copy: Path) -> None:
    root(copy, lambda manifest: entry(manifest).update(path=name))
    refusal(copy, "Manifest.json")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"rootModelIdentifier": []}', "[" * 100_000, "\ud800", " " * (2 << 20)]
)
def test_a_listing_that_is_none_is_refused(text: str, copy: Path) -> None:
    (copy / "Manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    refusal(copy, "Manifest.json")


def test_a_package_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path / "none", "Manifest.json is missing or damaged")
    (tmp_path / "file").write_bytes(b"model")
    refusal(tmp_path / "file", "Manifest.json is missing or damaged")
    (tmp_path / "empty").mkdir()
    refusal(tmp_path / "empty", "Manifest.json is missing or damaged")


def test_a_specification_that_is_cut_anywhere_is_refused(copy: Path) -> None:
    content = specification(copy).read_bytes()
    for length in range(0, len(content), 97):
        specification(copy).write_bytes(content[:length])
        refusal(copy)


def test_a_specification_that_is_implausibly_large_is_not_read(copy: Path) -> None:
    with specification(copy).open("r+b") as stream:
        stream.truncate(LARGEST_SPECIFICATION + 1)
    refusal(copy, "are not read")


def test_a_model_of_another_kind_is_refused(copy: Path) -> None:
    change(copy, lambda model: model.pipeline.models.add())
    refusal(copy, "it holds pipeline, not an ML program")


def test_weights_that_are_cut_anywhere_are_refused(copy: Path) -> None:
    weights = copy / FOLDER / "weights" / "weight.bin"
    content = weights.read_bytes()
    last = max(place for place in range(len(content)) if content[place])
    for length in range(0, last, 37):
        weights.write_bytes(content[:length])
        refusal(copy, "reaches beyond the end of the file|no constant begins there")
    weights.unlink()
    refusal(copy, r"the weight file weights/weight\.bin is missing")


# -- many things that are small enough one by one


def test_values_that_are_alive_at_once_are_held_to_4_gib(tmp_path: Path) -> None:
    """Each of 960 MB: four fit one after the other's end, not beside each other."""

    def tiled(mb: Any, x: Any, place: int) -> Any:
        return mb.tile(x=x, reps=[1, 60_000_000 + place])

    def start(mb: Any, x: Any) -> Any:
        return mb.slice_by_index(x=x, begin=[0, 0], end=[1, 4])

    def one_by_one(mb: Any, x: Any) -> Any:
        return mb.concat(values=[start(mb, tiled(mb, x, place)) for place in range(30)], axis=0)

    def at_once(mb: Any, x: Any) -> Any:
        large = [tiled(mb, x, place) for place in range(5)]
        return mb.concat(values=[start(mb, value) for value in large], axis=0)

    Interpreter(read_program(save(tmp_path / "one.mlpackage", one_by_one, np.ones((1, 4), np.float32))))
    refusal(save(tmp_path / "many.mlpackage", at_once, np.ones((1, 4), np.float32)), "tile.*more than 4 GiB")


def test_a_constant_of_many_names_is_kept_once_and_all_constants_are_held_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = np.random.default_rng(0).uniform(-1, 1, (256, 256)).astype(np.float32)
    ones = np.ones((1, 256), np.float32)

    def doubled(mb: Any, x: Any) -> Any:
        return mb.linear(x=mb.linear(x=x, weight=weight), weight=weight + 1)

    path = save(tmp_path / "model.mlpackage", doubled, ones)

    def other_names(model: Any) -> None:
        original = constant(model, "linear", "weight")
        for number in range(300):
            added = type(original).FromString(original.SerializeToString())
            added.outputs[0].name = f"copy{number}"
            block(model).operations.insert(0, added)

    change(path, other_names)
    program = read_program(path)
    monkeypatch.setattr("edgesam_mobile.runtime.coreml.interpreter.LARGEST_PROGRAM", 3 * weight.nbytes)
    (answer,) = Interpreter(program).run({"x0": torch.from_numpy(ones)}).values()
    np.testing.assert_allclose(answer.numpy(), ones @ weight.T @ (weight + 1).T, atol=1e-3)
    monkeypatch.setattr("edgesam_mobile.runtime.coreml.interpreter.LARGEST_PROGRAM", 2 * weight.nbytes - 1)
    refusal(path, "more than 4 GiB")


# -- anything wrong
