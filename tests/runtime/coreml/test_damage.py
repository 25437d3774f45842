"""Programs that are damaged or mean harm end in one line, without much memory; and what the two modes round."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mil_programs import interpret, save

from edgesam_mobile.runtime.coreml.interpreter import Interpreter
from edgesam_mobile.runtime.coreml.package import LARGEST_SPECIFICATION
from edgesam_mobile.runtime.coreml.program import read_program
from edgesam_mobile.runtime.coreml.types import ProgramError

FLOAT16, FLOAT32, STRING, INT32 = 10, 11, 2, 23  # numbers of element types in MIL.proto
FOLDER = "Data/com.apple.CoreML"
INPUTS = {"x0": torch.arange(192.0).reshape(1, 3, 8, 8) / 192}
Change = Callable[[Any], None]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small program with many kinds of operations, and constants in the program and in the weight file."""
    numbers = np.random.default_rng(0)
    weight = numbers.uniform(-1, 1, (4, 3, 3, 3)).astype(np.float32)
    indices = numbers.integers(0, 256, 16).astype(np.uint8)
    lut = numbers.uniform(-1, 1, 4).astype(np.float32)
    data = numbers.integers(-128, 128, (4, 4)).astype(np.int8)

    def body(mb: Any, x: Any) -> Any:
        x = mb.conv(x=x, weight=weight, bias=weight[:, 0, 0, 0], pad_type="custom", pad=[1, 1, 1, 1], name="conv")
        x = mb.relu(x=x)
        left, right = mb.split(x=x, num_splits=2, axis=1)
        x = mb.concat(values=(left, mb.gelu(x=right, mode="EXACT")), axis=1)
        ends = [True, True, False, False]
        half = mb.cast(x=x, dtype="fp16")
        x = mb.cast(x=mb.softmax(x=half, axis=-1), dtype="fp32")
        x = mb.slice_by_index(x=x, begin=[0, 0, 2, 2], end=[0, 0, -2, -2], begin_mask=ends, end_mask=ends)
        x = mb.pad(x=mb.tile(x=x, reps=[1, 1, 2, 1]), pad=[0, 0, 1, 1])
        x = mb.upsample_bilinear(x=x, scale_factor_height=2, scale_factor_width=2, align_corners=False)
        x = mb.layer_norm(x=mb.max_pool(x=x, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid"), axes=[-1])
        x = mb.reduce_mean(x=x, axes=[2], keep_dims=False)
        x = mb.reshape(x=mb.squeeze(x=mb.transpose(x=x, perm=[0, 2, 1]), axes=[0]), shape=[-1, 4])
        table = mb.constexpr_lut_to_dense(indices=indices, lut=lut, shape=np.array([16, 4], np.uint32))
        scaled = mb.constexpr_affine_dequantize(
            quantized_data=data, zero_point=np.int8(3), scale=np.float32(0.1), axis=np.int32(0)
        )
        x = mb.linear(x=mb.matmul(x=x, y=scaled), weight=table)
        places = mb.reduce_argmax(x=x, axis=1, keep_dims=False)
        return mb.gather(x=x, indices=places, axis=1), mb.fill(shape=[2, 3], value=np.float32(1))

    path = tmp_path_factory.mktemp("damage") / "model.mlpackage"
    save(path, body, INPUTS["x0"].numpy())
    return change(path, lambda model: None)  # in an order that is always the same


@pytest.fixture
def copy(package: Path, tmp_path: Path) -> Path:
    return shutil.copytree(package, tmp_path / "copy.mlpackage")


@contextmanager
def little_memory() -> Iterator[None]:
    """At most 768 MiB more than now, where the system can hold a process to that."""
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (768 << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def execute(path: Path) -> dict[str, torch.Tensor]:
    with little_memory():
        return Interpreter(read_program(path)).run(INPUTS)


def refusal(path: Path, reason: str | None = None) -> str:
    """What is said when the program is opened, which must be one line (with this in it)."""
    with little_memory(), pytest.raises(ProgramError, match=reason) as caught:
        Interpreter(read_program(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def specification(path: Path) -> Path:
    return path / FOLDER / "model.mlmodel"


def change(path: Path, alter: Change) -> Path:
    """Alter the model of a package."""
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model.FromString(specification(path).read_bytes())
    alter(model)
    specification(path).write_bytes(model.SerializeToString(deterministic=True))
    return path


def function(model: Any) -> Any:
    return model.mlProgram.functions["main"]


def block(model: Any) -> Any:
    (found,) = function(model).block_specializations.values()
    return found


def operation(model: Any, kind: str) -> Any:
    return next(item for item in block(model).operations if item.type == kind)


def constant(model: Any, kind: str, parameter: str) -> Any:
    """The operation that makes a parameter of the first operation of a kind."""
    name = operation(model, kind).inputs[parameter].arguments[0].name
    return next(item for item in block(model).operations if item.outputs[0].name == name)


def resize(kind: Any, *sides: int) -> None:
    """Give a type other sides."""
    del kind.tensorType.dimensions[:]
    for side in sides:
        kind.tensorType.dimensions.add().constant.size = side
    kind.tensorType.rank = len(sides)


def retype(item: Any, dtype: int) -> None:
    """Give a constant another element type."""
    for kind in (item.outputs[0].type, item.attributes["val"].type):
        kind.tensorType.dataType = dtype


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


# -- anything wrong


def spoiled(content: bytes, dice: random.Random) -> bytes:
    """Bytes with a few of them altered, cut, doubled or put elsewhere."""
    data = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        place, length = dice.randrange(len(data)), dice.randint(1, 16)
        match dice.randrange(5):
            case 0 | 1:
                data[place] ^= 1 << dice.randrange(8)
            case 2:
                data[place] = dice.choice([0, 1, 0x7F, 0x80, 0xFF])
            case 3:
                del data[place : place + length]
            case _:
                other = dice.randrange(len(data))
                data[place : place + length] = data[other : other + length]
    return bytes(data) or b"\0"


NUMBERS = [0, 1, -1, 2, 3, 4, 7, -8, 1 << 15, (1 << 31) - 1, -(1 << 31)]


def distorted(content: bytes, dice: random.Random) -> bytes:
    """A model that can be parsed, with a few of its operations, types or constants altered."""
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model.FromString(content)
    operations = block(model).operations
    names = [output.name for item in operations for output in item.outputs]
    for _ in range(dice.randint(1, 3)):
        item = dice.choice(operations)
        arguments = [argument for key in sorted(item.inputs) for argument in item.inputs[key].arguments]
        tensor = item.attributes["val"].immediateValue.tensor if "val" in item.attributes else None
        match dice.randrange(7):
            case 0 if item.type != "const":
                item.type = dice.choice([other.type for other in operations])
            case 1 if arguments:
                dice.choice(arguments).name = dice.choice(names)
            case 2:
                kind = dice.choice(item.outputs).type
                resize(kind, *(abs(dice.choice(NUMBERS)) for _ in range(dice.randrange(5))))
            case 3:
                kind = dice.choice(item.outputs).type
                kind.tensorType.dataType = dice.choice([1, 2, 10, 11, 12, 21, 23, 24, 25, 31, 37])
            case 4 | 5 if tensor is not None and tensor.ints.values:
                tensor.ints.values[dice.randrange(len(tensor.ints.values))] = dice.choice(NUMBERS)
            case 6 if tensor is not None and tensor.floats.values:
                tensor.floats.values[0] = dice.choice([0, -1, 1e30, float("inf"), float("nan")])
            case _:
                operations.remove(item)
    return model.SerializeToString(deterministic=True)


FUZZ = [
    (f"{FOLDER}/model.mlmodel", spoiled, 500),
    (f"{FOLDER}/model.mlmodel", distorted, 500),
    (f"{FOLDER}/weights/weight.bin", spoiled, 150),
    ("Manifest.json", spoiled, 100),
]


@pytest.mark.parametrize(("name", "spoil", "times"), FUZZ, ids=["bytes", "messages", "weights", "listing"])
def test_whatever_is_wrong_ends_in_one_line(
    name: str, spoil: Callable[[bytes, random.Random], bytes], times: int, copy: Path
) -> None:
    content = (copy / name).read_bytes()
    escaped: dict[str, int] = {}
    refused = 0
    for seed in range(times):
        (copy / name).write_bytes(spoil(content, random.Random(seed)))
        try:
            execute(copy)
        except ProgramError as error:
            refused += 1
            if "\n" in str(error):
                escaped.setdefault(f"several lines: {error}", seed)
        except Exception as error:
            escaped.setdefault(f"{type(error).__name__}: {error}", seed)
    assert not escaped, "\n".join(f"seed {seed}: {said!r}" for said, seed in escaped.items())
    assert refused > times // 10


# -- what is given, and how it is rounded


def test_inputs_that_do_not_fit_are_refused(package: Path) -> None:
    interpreter = Interpreter(read_program(package))
    with pytest.raises(ProgramError, match="the input x0 is missing"):
        interpreter.run({})
    for wrong in (torch.zeros(1, 3, 8, 9), torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.int32)):
        with pytest.raises(ProgramError, match=r"the input x0 is torch\.\w+\[.*\], the program declares fp32"):
            interpreter.run({"x0": wrong})


def test_sides_that_are_open_are_known_when_the_program_runs(tmp_path: Path) -> None:
    path = save(tmp_path / "model.mlpackage", lambda mb, x: mb.relu(x=x), np.ones((2, 3), np.float32))

    def opened(model: Any) -> None:
        for kind in (function(model).inputs[0].type, operation(model, "relu").outputs[0].type):
            kind.tensorType.dimensions[0].unknown.variadic = False
        for port in (*model.description.input, *model.description.output):
            del port.type.multiArrayType.shape[:]

    interpreter = Interpreter(read_program(change(path, opened)))
    for rows in (1, 5):
        (answer,) = interpreter.run({"x0": -torch.ones(rows, 3)}).values()
        assert answer.tolist() == [[0, 0, 0]] * rows
    with pytest.raises(ProgramError, match="more than 1 GiB"):
        interpreter.run({"x0": torch.ones(1, 3).expand(1 << 28, 3)})


def halves(mb: Any, x: Any) -> Any:
    """x / 3 and x * x in half precision, and x * x in single precision."""
    half = mb.cast(x=x, dtype="fp16")
    third = mb.cast(x=mb.real_div(x=half, y=np.float16(3)), dtype="fp32")
    return third, mb.cast(x=mb.mul(x=half, y=half), dtype="fp32"), mb.mul(x=x, y=x)


def test_half_precision_is_rounded_as_on_a_device_or_not_at_all() -> None:
    x = np.array([1, 10], np.float32)
    exact, device = interpret(halves, x), interpret(halves, x, mode="device-like")
    np.testing.assert_array_equal(exact[0], x / np.float32(3))
    np.testing.assert_array_equal(device[0], (x.astype(np.float16) / np.float16(3)).astype(np.float32))
    assert not np.array_equal(exact[0], device[0])
    for answers in (exact, device):
        np.testing.assert_array_equal(answers[1], x * x)
        np.testing.assert_array_equal(answers[2], x * x)


def test_half_precision_overflows_as_on_a_device_or_not_at_all() -> None:
    x = np.array([70000, 300], np.float32)
    exact, device = interpret(halves, x), interpret(halves, x, mode="device-like")
    assert np.isfinite(exact).all()
    np.testing.assert_array_equal(exact[1], x * x)
    np.testing.assert_array_equal(device[0], [np.inf, 100])
    np.testing.assert_array_equal(device[1], [np.inf, np.inf])
    np.testing.assert_array_equal(device[2], x * x)


def test_what_is_given_in_half_precision_is_rounded_as_on_a_device_or_not_at_all(tmp_path: Path) -> None:
    path = save(tmp_path / "model.mlpackage", lambda mb, x: mb.identity(x=x), np.ones(2, np.float16))
    given = {"x0": torch.tensor([1 / 3, 70000])}
    (exact,) = Interpreter(read_program(path)).run(given).values()
    assert torch.equal(exact, given["x0"])

    def cast(mb: Any, x: Any) -> Any:
        return mb.cast(x=x, dtype="fp32")

    path = save(tmp_path / "cast.mlpackage", cast, np.ones(2, np.float16))
    (device,) = Interpreter(read_program(path), mode="device-like").run(given).values()
    assert torch.equal(device, given["x0"].half().float())
