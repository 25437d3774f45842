"""A package that is quick to benchmark: untrained EdgeSAM at 512 pixels, with nothing but a Core ML artefact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgesam_mobile.files import sha256_of
from edgesam_mobile.model.standin import write_standin
from edgesam_mobile.package.manifest import Manifest, write_manifest


@pytest.fixture(scope="session")
def standin_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_standin("edge-sam", tmp_path_factory.mktemp("standin") / "student.safetensors")


@pytest.fixture(scope="session")
def bare_package(tmp_path_factory: pytest.TempPathFactory, standin_weights: Path) -> Path:
    """Its baselines can be run, its artefact cannot."""
    folder = tmp_path_factory.mktemp("bare-package")
    write_manifest(folder, bare_manifest(sha256_of(standin_weights)))
    return folder


def bare_manifest(weights_sha256: str, formats: tuple[str, ...] = ("coreml",), **changes: Any) -> Manifest:
    tensor = {"name": "x", "shape": [1], "dtype": "float32", "layout": "N", "meaning": "anything"}
    record = {"path": "nothing", "sha256": "0" * 64, "bytes": 1}
    graph = {"file": record, "inputs": [tensor], "outputs": [tensor], "op_types": {}, "parameters": 1}
    weights = {
        "name": "student.safetensors",
        "sha256": weights_sha256,
        "licence": "Apache-2.0",
        "commercial_use": True,
        "origin": None,
        "upsample": "bicubic",
        "trained": False,
    }
    return Manifest.model_validate(
        {
            "model": "student",
            "architecture": "edge-sam",
            "upsample": "bilinear",
            "created": "2026-11-23T09:00:00Z",
            "weights": weights,
            "picture": {"size": 512, "pad_rgb": [123.675, 116.28, 103.53]},
            "prompt": {"slots": 4, "prompts_per_call": 1, "mask_input": False},
            "mask": {"low_resolution": 128, "score": "stability", "point_masks": 4},
            "artifacts": [
                {
                    "id": f"{name}-fp32",
                    "format": name,
                    "precision": "fp32",
                    "targets": ["host"],
                    "encoder": graph,
                    "decoder": graph,
                }
                for name in formats
            ],
            "tools": {},
            **changes,
        }
    )
