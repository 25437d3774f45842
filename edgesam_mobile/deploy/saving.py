"""What a saved Core ML package does without: a debugging aid, and constants that are there already.

A program says every stride, axis and padding anew, as a constant of its own with a long name that is written three
times. That is a third of its text, 0.1 MB of MobileSAM's encoder. Operations keep the names that performance reports
and errors show.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import coremltools as ct
from coremltools.proto import Model_pb2


def make_small(package: Path) -> None:
    """Leave out of a saved ``.mlpackage`` what no device reads; what it computes stays the same."""
    # Where each operation comes from in torch. No part of the format, and half a megabyte of an ExecuTorch program,
    # which would hold it twice.
    (package / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
    share_constants(package)


@contextmanager
def small_packages() -> Iterator[None]:
    """Every model that is saved in here is small: ExecuTorch saves what it embeds itself, and takes no option."""
    save = ct.models.MLModel.save

    def save_small(model: Any, path: str) -> None:
        save(model, path)
        make_small(Path(path))

    ct.models.MLModel.save = save_small
    try:
        yield
    finally:
        ct.models.MLModel.save = save


def share_constants(package: Path) -> None:
    """Rewrite the program of a saved ``.mlpackage``; what it computes stays the same."""
    (path,) = package.rglob("model.mlmodel")
    model = Model_pb2.Model()
    model.ParseFromString(path.read_bytes())
    for function in model.mlProgram.functions.values():
        for block in function.block_specializations.values():
            _share(block)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _share(block: Any) -> None:
    taken = {output.name for operation in block.operations for output in operation.outputs}
    names = (name for name in map("c{}".format, itertools.count()) if name not in taken)
    known: dict[bytes, str] = {}
    called: dict[str, str] = {}
    kept = []
    for operation in block.operations:
        (output, *_) = operation.outputs
        if operation.type == "const" and output.name not in block.outputs:
            content = operation.attributes["val"].SerializeToString(deterministic=True)
            if content in known:
                called[output.name] = known[content]
                continue
            called[output.name] = known[content] = next(names)
            output.name = known[content]
            operation.attributes["name"].immediateValue.tensor.strings.values[0] = output.name
        for argument in (a for given in operation.inputs.values() for a in given.arguments):
            if argument.name in called:  # of an argument that is a value itself, the name is empty
                argument.name = called[argument.name]
        kept.append(operation)
    del block.operations[:]
    block.operations.extend(kept)
