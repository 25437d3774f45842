"""A package that is quick to benchmark: untrained EdgeSAM at 512 pixels, with nothing but a Core ML artefact."""

from __future__ import annotations

from pathlib import Path

import pytest
from bare_manifest import bare_manifest

from edgesam_mobile.files import sha256_of
from edgesam_mobile.model.standin import write_standin
from edgesam_mobile.package.manifest import write_manifest


@pytest.fixture(scope="session")
def standin_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_standin("edge-sam", tmp_path_factory.mktemp("standin") / "student.safetensors")


@pytest.fixture(scope="session")
def bare_package(tmp_path_factory: pytest.TempPathFactory, standin_weights: Path) -> Path:
    """Its baselines can be run, its artefact cannot."""
    folder = tmp_path_factory.mktemp("bare-package")
    write_manifest(folder, bare_manifest(sha256_of(standin_weights)))
    return folder
