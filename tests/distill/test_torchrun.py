"""``torchrun -m distill`` in two processes, with the real loader, teacher and decoder in the loop."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.log import RunLog
from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.standin import write_standin

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
[model]
architecture = "edge-sam-tiny"
image_size = 256

[teacher]
weights = "teacher.safetensors"

[data]
sources = [{ spec = "generated:8" }]
workers = 0

[data.prompts]
per_image = 3

[stage]
name = "prompts"
freeze_encoder = true

[optim]
lr = 1e-3

[run]
steps = 3
batch_size = 2
log_every = 1
picture_every = 0
"""


def run(folder: Path, *command: str) -> list[tuple[float, float]]:
    """Loss and gradient norm of each step."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-m", *command, "-m", "distill"] if command else [sys.executable, "-m", "distill"]
    name = f"run{len(command)}"
    done = subprocess.run(
        [*call, "recipe.toml", "-o", name], cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert load_model(folder / name / "model.safetensors").architecture == "edge-sam-tiny"
    return [(e["loss"], e["gradient_norm"]) for e in RunLog(folder / name / "log.jsonl").entries()]


@pytest.mark.slow
def test_two_processes_train_with_prompts_as_one_does(tmp_path: Path) -> None:
    """The encoder is frozen: without SyncBatchNorm, which needs CUDA, its statistics would be each process's own."""
    write_standin("edge-sam-tiny", tmp_path / "teacher.safetensors", 1, image_size=256)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    one = run(tmp_path)
    two = run(tmp_path, "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert len(one) == len(two) == 3
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-4)
    assert one[0][1] > 0
