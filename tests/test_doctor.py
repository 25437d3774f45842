"""``doctor`` tells what is installed from what is not, says how to mend it, and ends accordingly."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from edgesam_mobile.cli import app
from edgesam_mobile.cli.doctor import parse_requirement, satisfies
from edgesam_mobile.deploy.formats import FORMATS

ROOT = Path(__file__).resolve().parents[1]
Doctor = Callable[..., "subprocess.CompletedProcess[str]"]


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *words])


def checks(text: str) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(text)["checks"]}


@pytest.fixture
def without_extras(tmp_path: Path) -> Doctor:
    """Run doctor where none of the converters is installed: on links to the rest of the site's packages."""
    site = tmp_path / "site"
    site.mkdir()
    left_out = (
        *("coremltools", "executorch", "litert", "ai_edge", "flatbuffers", "onnx", "segment_anything", "torch"),
        *("numpy", "pycocotools", "scipy", "matplotlib", "adbutils", "alembic", "jinja2", "pg8000", "sqlalchemy"),
    )
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(left_out):
            (site / entry.name).symlink_to(entry)

    def doctor(*words: str) -> subprocess.CompletedProcess[str]:
        code = "from edgesam_mobile.cli import main; main()"
        # -S: the site's own packages stay out of reach.
        path = os.pathsep.join(map(str, (tmp_path / "more", site, ROOT)))
        call = [sys.executable, "-S", "-c", code, "doctor", *words]
        return subprocess.run(call, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})

    return doctor


def fake(folder: Path, name: str, version: str, source: str = "") -> None:
    """An installed distribution with one module."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / f"{name.replace('-', '_')}.py").write_text(source)


def test_the_environment_of_the_tests_is_ready() -> None:
    told = run("--json")
    data = json.loads(told.stdout)
    assert (data["schema"], data["ready"], data["lacking"], told.exit_code) == ("edgesam.doctor/1", True, [], 0)
    found = checks(told.stdout)
    assert found["coremltools"]["wanted"] == f"=={found['coremltools']['installed']}"
    assert found["segment-anything"]["required"] is False
    assert data["machine"]["cpus"] >= 1
    assert data["machine"]["memory_bytes"] > data["machine"]["memory_available_bytes"] > 0
    assert run("--quiet").stdout == "ready\n"
    human = run().stdout
    assert "ready to build every target" in human
    assert f"{data['machine']['cpus']} CPUs" in human


def test_every_package_of_every_extra_is_looked_for() -> None:
    requirements = map(parse_requirement, importlib.metadata.requires("edgesam-mobile") or ())
    optional = {name for name, _, extra in requirements if extra not in (None, "dev")} - {"edgesam-mobile"}
    assert {"coremltools", "sqlalchemy", "scipy"} < optional
    found = checks(run("--json").stdout)
    assert optional <= found.keys()
    extras = {known.extra for known in FORMATS.values()}
    requirements = map(parse_requirement, importlib.metadata.requires("edgesam-mobile") or ())
    assert all(found[name]["required"] for name, _, extra in requirements if extra in extras)


def test_what_is_missing_is_named_with_the_line_that_adds_it(without_extras: Doctor) -> None:
    told = without_extras("--json")
    assert told.returncode == 5, told.stderr
    found = checks(told.stdout)
    assert found["coremltools"] | {"needed_for": ""} == {
        "name": "coremltools",
        "installed": None,
        "wanted": "==9.0",
        "needed_for": "",
        "required": True,
        "state": "missing",
        "fix": 'pip install "edgesam-mobile[coreml]"',
        "reason": None,
    }
    data = json.loads(told.stdout)
    assert data["ready"] is False
    assert {"torch", "numpy", "executorch", "litert-torch", "onnxruntime"} < set(data["lacking"])
    assert found["scipy"]["fix"] == 'pip install "edgesam-mobile[eval]"'
    assert found["sqlalchemy"]["fix"] == 'pip install "edgesam-mobile[lab]"'
    assert not {"sqlalchemy", "segment-anything", "torchvision", "scipy", "git", "Python"} & set(data["lacking"])
    assert without_extras("--quiet").stdout.split() == data["lacking"]
    human = without_extras()
    assert human.returncode == 5
    assert 'onnx, onnxruntime, onnxscript: pip install "edgesam-mobile[onnx]"\n' in human.stdout
    assert 'adbutils, alembic, jinja2, pg8000, sqlalchemy: pip install "edgesam-mobile[lab]"\n' in human.stdout
    assert "missing (optional)" in human.stdout
    assert "not ready: `build --target all` lacks numpy, torch, coremltools," in human.stdout


def test_another_version_than_the_proved_one_is_told(tmp_path: Path, without_extras: Doctor) -> None:
    fake(tmp_path / "more", "coremltools", "8.3")
    fake(tmp_path / "more", "numpy", "2.4.0")
    fake(tmp_path / "more", "torch", "2.13.0+cpu")
    found = checks(without_extras("--json").stdout)
    assert (found["coremltools"]["state"], found["coremltools"]["installed"]) == ("other version", "8.3")
    assert (found["numpy"]["state"], found["numpy"]["fix"]) == ("other version", 'pip install "numpy<2.4,>=2"')
    assert found["torch"]["state"] == "ok"


def test_deep_imports_each_package_and_tells_why_one_fails(tmp_path: Path, without_extras: Doctor) -> None:
    more = tmp_path / "more"
    fake(more, "coremltools", "9.0", "raise ImportError('no libmilstoragepython')")
    fake(more, "torchvision", "0.28.0", "raise RuntimeError('operator torchvision::nms does not exist')")
    fake(more, "onnx", "1.23.2")
    told = without_extras("--deep", "--json")
    found = checks(told.stdout)
    assert found["onnx"]["state"] == "ok"
    assert found["coremltools"]["state"] == "does not import"
    assert found["coremltools"]["reason"] == "ImportError: no libmilstoragepython"
    assert "coremltools" in json.loads(told.stdout)["lacking"]
    assert "install both from one index" in found["torchvision"]["fix"]
    human = without_extras("--deep")
    assert "[3/3] torchvision" in human.stderr
    assert "\ncoremltools: ImportError: no libmilstoragepython\n" in human.stdout
    assert checks(without_extras("--json").stdout)["coremltools"]["state"] == "ok"


def test_a_machine_without_git_says_what_that_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = run("--json")
    assert checks(told.stdout)["git"]["state"] == "missing"
    assert told.exit_code == 0


def test_the_cache_is_told_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "not" / "yet"
    monkeypatch.setenv("EDGESAM_CACHE", str(cache))
    data = json.loads(run("--json").stdout)["cache"]
    assert (data["path"], data["weights"], data["free_bytes"] > 0) == (str(cache), [], True)
    assert not cache.exists()
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / "edge_sam.pth").write_bytes(b"")
    assert json.loads(run("--json").stdout)["cache"]["weights"] == ["edge-sam"]


@pytest.mark.parametrize(
    ("requirement", "parsed"),
    [
        ("filelock", ("filelock", "", None)),
        ("numpy<2.4,>=2", ("numpy", "<2.4,>=2", None)),
        ('coremltools==9.0; extra == "coreml"', ("coremltools", "==9.0", "coreml")),
        ("edgesam-mobile[onnx,tflite]; extra == 'all'", ("edgesam-mobile", "", "all")),
    ],
)
def test_requirements_are_read(requirement: str, parsed: tuple[str, str, str | None]) -> None:
    assert parse_requirement(requirement) == parsed


@pytest.mark.parametrize(
    ("version", "specifier", "met"),
    [
        ("2.13.0+cpu", ">=2.13,<2.14", True),
        ("2.14.0", ">=2.13,<2.14", False),
        ("2.9", ">=2.13", False),
        ("9.0", "==9.0", True),
        ("9", "==9.0", True),
        ("9.0.1", "==9.0", False),
        ("0.10.0rc1", "==0.10.0", True),
        ("anything", "", True),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, specifier: str, met: bool) -> None:
    assert satisfies(version, specifier) is met
