"""What can be checked of artefacts without executing them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from edgesam_mobile.errors import EnvironmentMissing, VerificationFailed
from edgesam_mobile.package.manifest import Artifact, GraphRecord
from edgesam_mobile.runtime.hush import hushed


def check_structure(package: Path, artifact: Artifact) -> str:
    """Open all its graphs as far as possible here and hold them against the manifest.

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
        for graph in artifact.graphs().values():
            check(package / graph.file.path, graph)
    what = {
        "coreml": "shapes, operations and weights",
        "executorch-coreml": "program header and method",
    }
    return f"{what[artifact.format]} as in the manifest"


def _check_coreml(path: Path, graph: GraphRecord) -> None:
    _need("coremltools", "coreml")
    from edgesam_mobile.runtime.coreml.interpreter import Interpreter
    from edgesam_mobile.runtime.coreml.program import read_program
    from edgesam_mobile.runtime.coreml.types import ProgramError

    try:
        program = read_program(path)
        Interpreter(program)  # reads every constant, and fits all shapes to each other
    except ProgramError as error:
        raise VerificationFailed(f"{path} is not a readable Core ML package: {error}") from error
    made = {name: kind for operation in program.operations for name, kind in operation.outputs}
    for kinds, recorded in ((program.inputs, graph.inputs), ({n: made[n] for n in program.outputs}, graph.outputs)):
        shapes = {name: list(kind.shape) for name, kind in kinds.items()}
        expected = {port.name: list(port.shape) for port in recorded}
        if shapes != expected:
            raise VerificationFailed(f"{path} has {shapes}, the manifest says {expected}")
    if program.op_types() != graph.op_types:
        raise VerificationFailed(f"{path} has other operations than the manifest says")


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
