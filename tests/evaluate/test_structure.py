"""What is caught of a Core ML artefact that nothing here executes, however well its hash agrees."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from package_copies import copy_package, edit, graph, rehash, write_json

from edgesam_mobile.errors import VerificationFailed
from edgesam_mobile.evaluate.structure import check_structure
from edgesam_mobile.package.manifest import check_file, read_manifest

pytestmark = pytest.mark.slow

INSPECTED = ["coreml-fp16", "coreml-fp32", "executorch-coreml-fp16"]


@pytest.mark.parametrize("name", INSPECTED)
@pytest.mark.parametrize("model", ["mobile_sam_package", "edge_sam_package"])
def test_good_artefacts_are_as_in_the_manifest(name: str, model: str, request: pytest.FixtureRequest) -> None:
    package: Path = request.getfixturevalue(model)
    assert "as in the manifest" in check_structure(package, read_manifest(package).artifact(name))


def specification(package: Path) -> Path:
    (path,) = package.rglob("*.mlmodel")
    return path


def altered(change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Alters the specification of a Core ML package."""

    def alter(package: Path) -> None:
        from coremltools.proto import Model_pb2  # slow to load

        spec = Model_pb2.Model()
        spec.ParseFromString(specification(package).read_bytes())
        change(spec)
        edit(specification(package), lambda _: spec.SerializeToString())

    return alter


def block(spec: Any) -> Any:
    (function,) = spec.mlProgram.functions.values()
    (found,) = function.block_specializations.values()
    return found


def weights(package: Path) -> Path:
    (path,) = package.rglob("weight.bin")
    return path


def drop_an_operation(spec: Any) -> None:
    operations = block(spec).operations
    index = max(i for i, op in enumerate(operations) if op.type == "add")
    del operations[index]


def flatten_shape(spec: Any) -> None:
    spec.description.output[0].type.multiArrayType.shape[0] = 7


DAMAGE: dict[str, Callable[[Path], object]] = {
    "weights missing": lambda package: weights(package).unlink(),
    "weights empty": lambda package: edit(weights(package), lambda content: b""),
    "weights halved": lambda package: edit(weights(package), lambda content: content[: len(content) // 2]),
    "weights cut at the end": lambda package: edit(weights(package), lambda content: content[:-1000]),
    "weights overwritten": lambda package: edit(weights(package), lambda content: bytes(len(content))),
    "specification missing": lambda package: specification(package).unlink(),
    "specification cut": lambda package: edit(specification(package), lambda content: content[: len(content) // 2]),
    "not a specification": lambda package: edit(specification(package), lambda content: b"nonsense" * 500),
    "manifest missing": lambda package: (package / "Manifest.json").unlink(),
    "output renamed": altered(lambda spec: setattr(spec.description.output[0], "name", "mask")),
    "output of another shape": altered(flatten_shape),
    "input renamed": altered(lambda spec: setattr(spec.description.input[0], "name", "picture")),
    "an operation dropped": altered(drop_an_operation),
    "an operation changed": altered(lambda spec: setattr(block(spec).operations[-1], "type", "sin")),
    "another kind of model": altered(lambda spec: spec.ClearField("mlProgram") or spec.identity.SetInParent()),
    "everything missing": lambda package: (shutil.rmtree(package), package.mkdir(), (package / "x").write_text("")),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_core_ml_package_is_caught(kind: str, edge_sam_package: Path, tmp_path: Path) -> None:
    package = copy_package(edge_sam_package, tmp_path / "p", "coreml-fp32")
    DAMAGE[kind](package / "coreml-fp32" / "decoder.mlpackage")
    if kind == "everything missing":
        pin(package, "coreml-fp32")
    else:
        rehash(package, "coreml-fp32", "decoder")
    artefact = read_manifest(package).artifact("coreml-fp32")
    check_file(package, artefact.decoder.file)
    with pytest.raises(VerificationFailed, match=r"decoder\.mlpackage"):
        check_structure(package, artefact)


def pin(package: Path, name: str) -> None:
    """As ``rehash``, for a folder of empty files, to which a manifest cannot give its true size of 0."""
    rehash(package, name, "decoder")
    manifest = json.loads((package / "manifest.json").read_text())
    graph(manifest, name, "decoder")["file"]["bytes"] = 1
    write_json(package / "manifest.json", manifest)


@pytest.mark.parametrize("keep", [0.001, 0.5, 0.999])
def test_a_truncated_program_for_core_ml_is_caught(keep: float, edge_sam_package: Path, tmp_path: Path) -> None:
    name = "executorch-coreml-fp16"
    package = copy_package(edge_sam_package, tmp_path / "p", name)
    edit(package / name / "encoder.pte", lambda content: content[: int(len(content) * keep)])
    rehash(package, name, "encoder")
    with pytest.raises(VerificationFailed, match=r"encoder\.pte"):
        check_structure(package, read_manifest(package).artifact(name))
