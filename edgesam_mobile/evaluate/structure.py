"""What can be checked of artefacts that nothing on this machine executes."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from typing import Any

from edgesam_mobile.errors import EnvironmentMissing, VerificationFailed
from edgesam_mobile.package.manifest import Artifact, GraphRecord
from edgesam_mobile.runtime.hush import hushed


def check_structure(package: Path, artifact: Artifact) -> str:
    """Open both graphs as far as possible here and hold them against the manifest.

    Returns:
        One line that says what was checked.

    Raises:
        VerificationFailed: a file is not what the manifest says.
        EnvironmentMissing: the library that reads the format is not installed.
    """
    check = {"coreml": _check_coreml, "executorch-coreml": _check_program}.get(artifact.format)
    if check is None:
        return "files unaltered; nothing here reads the format"
    with hushed():
        for graph in (artifact.encoder, artifact.decoder):
            check(package / graph.file.path, graph)
    what = {
        "coreml": "specification, shapes, operations and weights",
        "executorch-coreml": "program header and method",
    }
    return f"{what[artifact.format]} as in the manifest"


def _check_coreml(path: Path, graph: GraphRecord) -> None:
    _need("coremltools", "coreml")
    import coremltools as ct

    from edgesam_mobile.deploy.coreml import op_types

    try:
        spec = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
        found = op_types(path)
    except Exception as error:  # protobuf and coremltools raise many kinds on a damaged package
        raise VerificationFailed(f"{path} is not a readable Core ML package: {error}") from error
    if spec.WhichOneof("Type") != "mlProgram":
        raise VerificationFailed(f"{path} is not an ML program")
    for ports, recorded in ((spec.description.input, graph.inputs), (spec.description.output, graph.outputs)):
        shapes = {port.name: _shape(port) for port in ports}
        expected = {port.name: list(port.shape) for port in recorded}
        if shapes != expected:
            raise VerificationFailed(f"{path} has {shapes}, the manifest says {expected}")
    if found != graph.op_types:
        raise VerificationFailed(f"{path} has other operations than the manifest says")
    weights = list(path.rglob("weight.bin"))
    if len(weights) != 1 or _stored_bytes(weights[0]) < graph.parameters:
        raise VerificationFailed(f"{path} lacks weights for {graph.parameters} parameters")


def _stored_bytes(weights: Path) -> int:
    """Bytes of all tensors in a ``weight.bin``; 0 if one is cut short.

    The file is a 64-byte header with their count, then for each a 64-byte header (mark, type, bytes, place) and
    its data, both at multiples of 64.
    """
    size, place, total = weights.stat().st_size, 64, 0
    with weights.open("rb") as stream:
        count = int.from_bytes(stream.read(4), "little")
        for _ in range(count):
            stream.seek(place)
            header = stream.read(24)
            if len(header) < 24:
                return 0
            mark, _, length, start = struct.unpack("<IIQQ", header)
            if mark != 0xDEADBEEF or start + length > size:
                return 0
            total += length
            place = -(-(start + length) // 64) * 64
    return total


def _shape(port: Any) -> list[int]:
    kind = port.type
    if kind.WhichOneof("Type") == "imageType":
        return [1, 3, kind.imageType.height, kind.imageType.width]
    return list(kind.multiArrayType.shape)


def _check_program(path: Path, graph: GraphRecord) -> None:
    _need("executorch", "executorch")
    from executorch.runtime import Runtime, Verification

    try:
        program = Runtime.get().load_program(path, verification=Verification.InternalConsistency)
        methods = program.method_names
    except RuntimeError as error:
        raise VerificationFailed(f"{path} is not a readable ExecuTorch program: {error}") from error
    if methods != {"forward"} or path.stat().st_size < graph.parameters:
        raise VerificationFailed(f"{path} is not the program that the manifest describes")


def _need(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise EnvironmentMissing(f"{module} is not installed", hint=f'pip install "edgesam-mobile[{extra}]"')
