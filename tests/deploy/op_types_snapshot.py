"""The operation types in each artefact of some packages, committed as ``op_types.json``.

By architecture: the default artefacts of a model. ``unusual``: EdgeSAM with a mask input, several prompts a call and
pictures in bytes. ``recommended``: what is recommended for iOS, of edge-sam-open.

A converter's new version, or a change of a graph, may bring operations that a phone's accelerator does not take.
After checking that new ones are wanted, write their entries anew from freshly built packages:

    python tests/deploy/op_types_snapshot.py mobile-sam=PACKAGE edge-sam=PACKAGE unusual=PACKAGE recommended=PACKAGE
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from edgesam_mobile.package.manifest import read_manifest

SNAPSHOT = Path(__file__).with_name("op_types.json")

Types = dict[str, dict[str, list[str]]]

# Operations that accelerators reject, or that make shapes or memory access depend on values; by the names that
# ONNX, TFLite, Core ML and ExecuTorch have for them, in lower case and without overload and note.
REJECTED = re.compile(
    r"sin|cos|gather\w*|scatter\w*|index(_put\w*|_select)?|non_?zero|(not_?)?equal|greater\w*|less\w*"
    r"|(eq|ne|gt|ge|lt|le)|where|select(_v2)?|(reduce_)?arg_?(max|min)|top_?k(_v2)?|one_?hot"
)


def types_of(package: Path) -> Types:
    """The sorted operation types of every artefact of a package, for encoder and decoder."""
    return {
        artifact.id: {"encoder": sorted(artifact.encoder.op_types), "decoder": sorted(artifact.decoder.op_types)}
        for artifact in read_manifest(package).artifacts
    }


def rejected(name: str) -> bool:
    """Whether an operation is among those that no graph may hold."""
    bare = name.removesuffix(" (portable)").rpartition("::")[2].partition(".")[0]
    return bool(REJECTED.fullmatch(bare.lower()))


def grown(package: Path, name: str) -> dict[str, list[str]]:
    """Operation types of a package that the snapshot of this name has not, by artefact and graph."""
    found, known = types_of(package), json.loads(SNAPSHOT.read_text())[name]
    assert found.keys() == known.keys()
    added = {
        f"{artifact} {part}": sorted(set(types) - set(known[artifact][part]))
        for artifact, parts in found.items()
        for part, types in parts.items()
    }
    return {where: types for where, types in added.items() if types}


if __name__ == "__main__":
    packages = dict(argument.split("=", 1) for argument in sys.argv[1:])
    found = {name: types_of(Path(package)) for name, package in packages.items()}
    SNAPSHOT.write_text(json.dumps(json.loads(SNAPSHOT.read_text()) | found, indent=2) + "\n")
