"""Programs whose equal constants are one, with short names: they compute what they did."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coremltools.proto import Model_pb2
from mil_damage import INPUTS, function
from mil_programs import save

from edgesam_mobile.deploy.saving import share_constants
from edgesam_mobile.runtime.coreml.interpreter import Interpreter
from edgesam_mobile.runtime.coreml.program import read_program


def operations(package: Path) -> list[tuple[str, list[str], str]]:
    """Type, outputs and value (of constants) of each operation."""
    (path,) = package.rglob("model.mlmodel")
    model = Model_pb2.Model()
    model.ParseFromString(path.read_bytes())
    (block,) = function(model).block_specializations.values()
    return [
        (op.type, [out.name for out in op.outputs], str(op.attributes["val"]) if op.type == "const" else "")
        for op in block.operations
    ]


def test_equal_constants_are_one_and_the_answer_is_the_same(package: Path, copy: Path) -> None:
    share_constants(copy)
    before, now = operations(package), operations(copy)
    values = Counter(value for kind, _, value in now if kind == "const")
    assert set(values) == {value for kind, _, value in before if kind == "const"} and set(values.values()) == {1}
    assert sum(kind == "const" for kind, *_ in before) > len(values)
    answers = (Interpreter(read_program(path)).run(INPUTS) for path in (package, copy))
    for expected, found in zip(*(answer.items() for answer in answers), strict=True):
        assert expected[0] == found[0] and torch.equal(expected[1], found[1])


def test_what_computes_keeps_its_name_and_no_constant_takes_it(tmp_path: Path) -> None:
    def body(mb: Any, x: Any) -> Any:
        return mb.transpose(x=mb.relu(x=x, name="c0"), perm=[1, 0], name="c1")

    path = save(tmp_path / "model.mlpackage", body, np.ones((2, 3), np.float32))
    share_constants(path)
    assert [(kind, names) for kind, names, _ in operations(path)] == [
        ("relu", ["c0"]),
        ("const", ["c2"]),
        ("transpose", ["c1"]),
    ]
    assert Interpreter(read_program(path)).run({"x0": torch.ones(2, 3)})["c1"].shape == (3, 2)


def test_values_in_the_place_of_names_stay(tmp_path: Path) -> None:
    """From iOS 18 on, what a palette needs stands within the operation."""
    indices = np.random.default_rng(0).integers(0, 256, (8, 4)).astype(np.uint8)
    lut = np.linspace(-1, 1, 256, dtype=np.float32).reshape(1, 1, 256, 1)

    def body(mb: Any, x: Any) -> Any:
        weight = mb.constexpr_lut_to_dense(indices=indices, lut=lut)
        return mb.transpose(x=mb.linear(x=x, weight=weight), perm=[1, 0])

    path = save(tmp_path / "model.mlpackage", body, np.ones((2, 4), np.float32), system="iOS18")
    share_constants(path)
    (answer,) = Interpreter(read_program(path)).run({"x0": torch.ones(2, 4)}).values()
    expected = lut.reshape(-1)[indices].sum(1)
    assert np.allclose(answer.numpy(), np.stack([expected, expected], 1), atol=1e-5)
