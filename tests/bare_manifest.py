"""A manifest of artefacts that nothing can run, for what does not run them."""

from __future__ import annotations

from typing import Any

from edgesam_mobile.package.manifest import Manifest


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
