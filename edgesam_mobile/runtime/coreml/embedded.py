"""The Core ML package inside an ExecuTorch program whose work Core ML does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgesam_mobile.runtime.coreml.types import ProgramError

# The listing of the files stands, reversed, behind them.
_LARGEST_LISTING = 1 << 20
_PACKAGE = "model.mlpackage"
_METADATA = "metadata.json"


@dataclass(frozen=True)
class Embedded:
    """What was found in an ExecuTorch program.

    Attributes:
        package: the extracted ``.mlpackage``.
        inputs: names of the package's inputs, in the order of the program's.
        outputs: likewise.
    """

    package: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def extract(path: Path, folder: Path) -> Embedded:
    """Write the package that ``path`` carries into ``folder``.

    Raises:
        ProgramError: the file is no ExecuTorch program, or one that computes anything outside of one Core ML part.
        StorageError: the folder cannot be written.
    """
    plan, payload = _delegate(path)
    files = _files(payload)
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    try:
        said = json.loads(files[_METADATA])
        names = (tuple(map(str, said["inputNames"])), tuple(map(str, said["outputNames"])))
    except (KeyError, ValueError, TypeError) as error:
        raise ProgramError("its Core ML part does not say what its inputs and outputs are") from error
    arguments = plan.chains[0].instructions[0].instr_args.args
    if len(arguments) != len(names[0]) + len(names[1]):
        raise ProgramError(f"its Core ML part takes {len(arguments)} values, but names {len(names[0] + names[1])}")
    by_value = dict(zip(arguments, names[0] + names[1], strict=True))
    try:
        inputs, outputs = (tuple(by_value[value] for value in values) for values in (plan.inputs, plan.outputs))
    except KeyError as error:
        raise ProgramError("an input or output does not come from its Core ML part") from error
    return Embedded(folder / _PACKAGE, inputs, outputs)


def _delegate(path: Path) -> tuple[Any, bytes]:
    """The only execution plan, and the bytes given to Core ML in it."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    try:
        program = deserialize_pte_binary(path.read_bytes()).program
    except Exception as error:  # the reader of flatbuffers fails in as many ways as there are fields
        raise ProgramError(f"it is no readable ExecuTorch program ({type(error).__name__})") from error
    plans = program.execution_plan or []
    if len(plans) != 1:
        raise ProgramError(f"it has {len(plans)} methods, not one")
    plan = plans[0]
    calls = [instruction.instr_args for chain in plan.chains for instruction in chain.instructions]
    backends = [delegate.id for delegate in plan.delegates]
    if [type(call).__name__ for call in calls] != ["DelegateCall"] or backends != ["CoreMLBackend"]:
        raise ProgramError("it computes outside of its Core ML part, which is not executed here")
    place = plan.delegates[0].processed
    if place.location.name != "INLINE" or place.index >= len(program.backend_delegate_data):
        raise ProgramError("its Core ML part is stored in a way that is not known")
    return plan, bytes(program.backend_delegate_data[place.index].data)


def _files(payload: bytes) -> Mapping[str, bytes]:
    """The directory that ExecuTorch's Core ML backend flattens into bytes: contents, then its listing reversed.

    The listing is JSON: nodes with a name, a range of bytes, and children by name as places in the list.
    """
    try:
        text = payload[-_LARGEST_LISTING:][::-1].decode("latin-1")
        nodes = json.JSONDecoder().raw_decode(text)[0]["nodes"]
        children = [dict(node.get("children") or {}) for node in nodes]
        (root,) = set(range(len(nodes))) - {place for below in children for place in below.values()}
        found: dict[str, bytes] = {}
        size = 0
        left = [("", root)]
        seen: set[int] = set()
        while left:
            name, place = left.pop()
            if place in seen:
                raise ProgramError("the listing of its Core ML part goes in a circle")
            seen.add(place)
            if nodes[place]["kind"] == 0:
                if children[place]:
                    raise ProgramError(f"{name} in its Core ML part is a file and a folder")
                found[_safe(name)] = _content(payload, nodes[place]["dataRegion"], name)
                size += len(found[name])
                if size > len(payload):
                    raise ProgramError("files of its Core ML part overlap")
            left += [(f"{name}/{child}" if name else child, number) for child, number in children[place].items()]
    except ProgramError:
        raise
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
        raise ProgramError("the listing of its Core ML part is damaged") from error
    return found


def _content(payload: bytes, region: Mapping[str, Any], name: str) -> bytes:
    start, length = int(region["offset"]), int(region["size"])
    if start < 0 or length < 0 or start + length > len(payload):
        raise ProgramError(f"{name} in its Core ML part reaches beyond the end")
    return payload[start : start + length]


def _safe(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ProgramError("a file of its Core ML part would be written outside of its folder")
    if not path.parts or any(len(part.encode(errors="surrogatepass")) > 255 for part in path.parts):
        raise ProgramError("a file of its Core ML part has no name, or too long a one")
    name.encode()  # a ValueError where it is no text
    return name
