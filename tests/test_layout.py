"""The shape of the source: which room may use which, what a command may load, how long a file may be."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "edgesam_mobile"

# Each room may use those to its left, itself and the modules beside the rooms.
ROOMS = ("weights", "model", "package", "deploy", "runtime", "evaluate", "lab", "cli")
HEAVY = {
    *("torch", "torchvision", "coremltools", "executorch", "litert_torch", "ai_edge_litert", "ai_edge_quantizer"),
    *("onnx", "onnxruntime", "onnxscript", "numpy", "PIL", "pydantic", "requests", "safetensors", "psutil", "rich"),
    *("distill", "matplotlib", "pycocotools", "scipy", "sqlalchemy", "alembic", "pg8000", "jinja2", "adbutils"),
}
LONGEST = 500
# In pieces, so that this file does not hold what it forbids.
REGISTRIES = re.compile(
    r"\b("
    + "|".join(
        (
            r"py" r"pi\.org",
            r"python" r"hosted\.org",
            r"npm" r"js\.(org|com)",
            r"crates" r"\.io",
            r"conda" r"\.(io|anaconda\.org)",
            r"download\.py" r"torch\.org",
            r"maven" r"\.(org|google\.com|apache\.org)",
            r"docker" r"\.io",
            r"ruby" r"gems\.org",
        )
    )
    + r")\b"
)  # fmt: skip
MACHINE_PATHS = re.compile(r"(?<![\w.~}:/-])/(work|root|home|opt)(?![\w-])")

MODULES = sorted(PACKAGE.rglob("*.py"))
each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of what a syntax tree imports, at any depth, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            # What is imported may be a module itself: `from edgesam_mobile import deploy`.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(dotted: str) -> str | None:
    """The room of a name such as ``edgesam_mobile.model.sam.Sam``; None outside the rooms."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "edgesam_mobile" and len(parts) > 1 and parts[1] in ROOMS else None


@cache
def repository_files() -> tuple[Path, ...]:
    """Files that are in git or about to be: not yet added, and not ignored."""
    call = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(call, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return tuple(path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file())


def offences(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in repository_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or a model
        for number, line in enumerate(text.splitlines(), 1):
            if match := pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    return found


def test_every_folder_of_the_package_is_a_room() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} <= set(ROOMS)


@each_module
def test_a_room_uses_only_rooms_to_its_left(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    used = {room for name in imports(ast.parse(path.read_text(encoding="utf-8"))) if (room := room_of(name))}
    if len(relative.parts) > 1:
        allowed = set(ROOMS[: ROOMS.index(relative.parts[0]) + 1])
    elif relative.name == "__init__.py":
        allowed = {"model"}  # for type checkers; at run time it loads on first use
    else:
        allowed = set()  # common ground
    assert used <= allowed


@each_module
def test_only_the_command_line_uses_the_training_code(path: Path) -> None:
    used = {name.partition(".")[0] for name in imports(ast.parse(path.read_text(encoding="utf-8")))}
    assert "distill" not in used or path.relative_to(PACKAGE).parts[0] == "cli"


@pytest.mark.parametrize("path", sorted((ROOT / "distill").rglob("*.py")), ids=lambda path: path.name)
def test_training_uses_neither_exports_nor_timings(path: Path) -> None:
    used = {room_of(name) for name in imports(ast.parse(path.read_text(encoding="utf-8")))}
    assert used <= {"weights", "model", "evaluate", "cli", None}


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda path: path.name)
def test_importing_a_module_of_the_command_line_loads_nothing_heavy(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_import = ast.Module([node for node in tree.body if not for_type_checkers(node)], [])
    for node in ast.walk(at_import):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = []
    assert not HEAVY & {name.partition(".")[0] for name in imports(at_import)}


def for_type_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def test_no_source_file_is_too_long() -> None:
    sources = [path for path in repository_files() if path.suffix in (".py", ".sh", ".kt", ".swift", ".md", ".toml")]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > LONGEST} == {}


def test_no_file_names_a_package_registry() -> None:
    """Whoever installs chooses where from: a mirror, a proxy, a folder of wheels."""
    assert offences(REGISTRIES) == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert offences(MACHINE_PATHS) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/ro" + "ot/x", True),
        ('open("/ho' + 'me/me/x")', True),
        ("in /op" + "t.", True),
        ("/op" + "timum", False),
        ("~/wo" + "rk", False),
        ("https://example.org/ho" + "me/x", False),
        ("{folder}/wo" + "rk/x", False),
        ("tests/wo" + "rk", False),
    ],
)
def test_paths_of_one_machine_are_told_from_others(text: str, found: bool) -> None:
    assert bool(MACHINE_PATHS.search(text)) is found
