"""What users may import, and that importing it costs nothing before it is used."""

from __future__ import annotations

import importlib
import importlib.resources
import subprocess
import sys

import pytest

import edgesam_mobile
from edgesam_mobile import errors

EXPORTED = [
    "DeviceError",
    "EdgeSamError",
    "EnvironmentMissing",
    "FetchError",
    "Inconclusive",
    "PackageError",
    "PictureError",
    "Sam",
    "SamPredictor",
    "StorageError",
    "TargetMissed",
    "UsageError",
    "VerificationFailed",
    "WeightsError",
    "__version__",
    "load_model",
]


def test_the_exported_names_are_these() -> None:
    assert edgesam_mobile.__all__ == EXPORTED
    assert dir(edgesam_mobile) == sorted(EXPORTED)


@pytest.mark.parametrize("name", EXPORTED)
def test_each_exported_name_is_there_and_documented(name: str) -> None:
    value = getattr(edgesam_mobile, name)
    assert name == "__version__" or value.__doc__


def test_every_error_is_exported() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined <= set(edgesam_mobile.__all__)


def test_a_name_that_does_not_exist_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match=r"module 'edgesam_mobile' has no attribute 'load_modle'"):
        _ = edgesam_mobile.load_modle


@pytest.mark.parametrize("room", ["weights", "model", "package"])
def test_what_a_room_exports_is_there(room: str) -> None:
    module = importlib.import_module(f"edgesam_mobile.{room}")
    assert all(hasattr(module, name) for name in getattr(module, "__all__", ()))


@pytest.mark.parametrize("module", ["edgesam_mobile", "edgesam_mobile.errors", "edgesam_mobile.cli"])
def test_importing_loads_neither_torch_nor_numpy(module: str) -> None:
    code = f"import sys, {module}; sys.exit(bool({{'torch', 'numpy', 'pydantic', 'PIL'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_names_that_need_torch_load_it_on_first_use() -> None:
    code = "import sys, edgesam_mobile as e; e.Sam; sys.exit('torch' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_package_is_typed() -> None:
    assert (importlib.resources.files("edgesam_mobile") / "py.typed").is_file()
