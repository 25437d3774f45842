"""A small real package, and copies of it to damage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mil_damage import INPUTS, change
from mil_programs import save


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small program with many kinds of operations, and constants in the program and in the weight file."""
    numbers = np.random.default_rng(0)
    weight = numbers.uniform(-1, 1, (4, 3, 3, 3)).astype(np.float32)
    indices = numbers.integers(0, 256, 16).astype(np.uint8)
    lut = numbers.uniform(-1, 1, 4).astype(np.float32)
    data = numbers.integers(-128, 128, (4, 4)).astype(np.int8)

    def body(mb: Any, x: Any) -> Any:
        x = mb.conv(x=x, weight=weight, bias=weight[:, 0, 0, 0], pad_type="custom", pad=[1, 1, 1, 1], name="conv")
        x = mb.relu(x=x)
        left, right = mb.split(x=x, num_splits=2, axis=1)
        x = mb.concat(values=(left, mb.gelu(x=right, mode="EXACT")), axis=1)
        ends = [True, True, False, False]
        half = mb.cast(x=x, dtype="fp16")
        x = mb.cast(x=mb.softmax(x=half, axis=-1), dtype="fp32")
        x = mb.slice_by_index(x=x, begin=[0, 0, 2, 2], end=[0, 0, -2, -2], begin_mask=ends, end_mask=ends)
        x = mb.pad(x=mb.tile(x=x, reps=[1, 1, 2, 1]), pad=[0, 0, 1, 1])
        x = mb.upsample_bilinear(x=x, scale_factor_height=2, scale_factor_width=2, align_corners=False)
        x = mb.layer_norm(x=mb.max_pool(x=x, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid"), axes=[-1])
        x = mb.reduce_mean(x=x, axes=[2], keep_dims=False)
        x = mb.reshape(x=mb.squeeze(x=mb.transpose(x=x, perm=[0, 2, 1]), axes=[0]), shape=[-1, 4])
        table = mb.constexpr_lut_to_dense(indices=indices, lut=lut, shape=np.array([16, 4], np.uint32))
        scaled = mb.constexpr_affine_dequantize(
            quantized_data=data, zero_point=np.int8(3), scale=np.float32(0.1), axis=np.int32(0)
        )
        x = mb.linear(x=mb.matmul(x=x, y=scaled), weight=table)
        places = mb.reduce_argmax(x=x, axis=1, keep_dims=False)
        return mb.gather(x=x, indices=places, axis=1), mb.fill(shape=[2, 3], value=np.float32(1))

    path = tmp_path_factory.mktemp("damage") / "model.mlpackage"
    save(path, body, INPUTS["x0"].numpy())
    return change(path, lambda model: None)  # in an order that is always the same


@pytest.fixture
def copy(package: Path, tmp_path: Path) -> Path:
    return shutil.copytree(package, tmp_path / "copy.mlpackage")
