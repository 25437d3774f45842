"""A manifest as a build writes it, and a strategy that draws any valid one."""

from __future__ import annotations

import json
from typing import Any, cast

from hypothesis import strategies as st

from edgesam_mobile.package.manifest import Manifest


def sample() -> dict[str, Any]:
    """A fresh, valid manifest as the JSON object that ``manifest.json`` holds."""
    picture = tensor("picture", [1, 3, 1024, 1024], "NCHW", "colours 0..255")
    embedding = tensor("embedding", [1, 256, 64, 64], "NCHW", "of the picture")
    prompt = [tensor("coords", [1, 5, 2], "BNX", "pixels"), tensor("labels", [1, 5], "BN", "-1 to 3")]
    masks = tensor("masks", [1, 4, 256, 256], "BMHW", "logits")
    artifacts = [
        {
            "id": f"{format_}-{precision}",
            "format": format_,
            "precision": precision,
            "targets": [target],
            "minimum_os": minimum_os,
            "encoder": graph(f"{folder}/encoder{suffix}", [picture], [embedding]),
            "decoder": graph(f"{folder}/decoder{suffix}", [embedding, *prompt], [masks]),
        }
        for format_, precision, target, minimum_os, folder, suffix in (
            ("coreml", "fp16", "ios", "iOS 16", "ios", ".mlpackage"),
            ("onnx", "fp32", "host", None, "host", ".onnx"),
        )
    ]
    whole = {
        "schema": "edgesam.manifest/1",
        "model": "mobile-sam",
        "architecture": "mobile-sam",
        "created": "2026-11-23T09:00:00Z",
        "weights": {
            "name": "mobile-sam",
            "sha256": "ab" * 32,
            "licence": "Apache-2.0",
            "commercial_use": True,
            "origin": "MobileSAM authors",
            "upsample": None,
            "trained": True,
        },
        "picture": {"size": 1024, "pad_rgb": [123.675, 116.28, 103.53]},
        "prompt": {"slots": 5, "prompts_per_call": 1, "mask_input": False},
        "mask": {"low_resolution": 256, "threshold": 0.0, "score": "iou", "point_masks": 3},
        "artifacts": artifacts,
        "tools": {"torch": "2.13.0", "coremltools": "9.0"},
        "git": {"commit": "0123456", "dirty": True},
    }
    # Through JSON, so that no two places share an object.
    return cast(dict[str, Any], json.loads(json.dumps(whole)))


def tensor(name: str, shape: list[int], layout: str, meaning: str) -> dict[str, Any]:
    return {"name": name, "shape": shape, "dtype": "float32", "layout": layout, "meaning": meaning}


def graph(path: str, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "file": {"path": path, "sha256": "0123456789abcdef" * 4, "bytes": 12_345_678},
        "inputs": inputs,
        "outputs": outputs,
        "op_types": {"conv": 50},
        "parameters": 5_000_000,
    }


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_names = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True)
_positive = st.integers(1, 2**40)
_numbers = st.floats(allow_nan=False, allow_infinity=False)
_hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
_paths = st.lists(_names.filter(lambda name: ".." not in name), min_size=1, max_size=4).map("/".join)
_dtypes = st.sampled_from(["float32", "float16", "uint8", "image"])

_tensors = st.fixed_dictionaries(
    {
        "name": _texts,
        "shape": st.lists(_positive, max_size=5),
        "dtype": _dtypes,
        "layout": _texts,
        "meaning": _texts,
    }
)
_graphs = st.fixed_dictionaries(
    {
        "file": st.fixed_dictionaries({"path": _paths, "sha256": _hashes, "bytes": _positive}),
        "inputs": st.lists(_tensors, min_size=1, max_size=2),
        "outputs": st.lists(_tensors, min_size=1, max_size=2),
        "op_types": st.dictionaries(_texts, _positive, max_size=3),
        "parameters": _positive,
    }
)
_artifacts = st.fixed_dictionaries(
    {
        "id": _names,
        "format": _names,
        "precision": st.sampled_from(["fp32", "fp16"]),
        "targets": st.lists(st.sampled_from(["ios", "android", "host"]), min_size=1, max_size=3),
        "encoder": _graphs,
        "decoder": _graphs,
    },
    optional={"minimum_os": st.none() | _texts},
)
_weights = st.fixed_dictionaries(
    {
        "name": _texts,
        "sha256": _hashes,
        "licence": st.none() | _texts,
        "commercial_use": st.none() | st.booleans(),
        "origin": st.none() | _texts,
        "upsample": st.none() | _texts,
        "trained": st.booleans(),
    }
)
manifests = st.fixed_dictionaries(
    {
        "model": _texts,
        "architecture": _texts,
        "created": _texts,
        "weights": _weights,
        "picture": st.fixed_dictionaries(
            {"size": _positive, "pad_rgb": st.tuples(_numbers, _numbers, _numbers)},
            optional={"value_range": st.tuples(_numbers, _numbers), "resize": _texts},
        ),
        "prompt": st.fixed_dictionaries(
            {"slots": _positive, "prompts_per_call": _positive, "mask_input": st.booleans()},
            optional={"labels": st.dictionaries(_texts, st.integers(), max_size=4)},
        ),
        "mask": st.fixed_dictionaries(
            {
                "low_resolution": _positive,
                "score": st.sampled_from(["iou", "stability"]),
                "point_masks": st.sampled_from([3, 4]),
            },
            optional={"threshold": _numbers},
        ),
        "artifacts": st.lists(_artifacts, min_size=1, max_size=2, unique_by=lambda artifact: artifact["id"]),
        "tools": st.dictionaries(_texts, _texts, max_size=3),
    },
    optional={
        "code_licence": _texts,
        "upsample": st.sampled_from([None, "bilinear", "bicubic"]),
        "git": st.none() | st.fixed_dictionaries({"commit": _texts, "dirty": st.booleans()}),
    },
).map(Manifest.model_validate)
