"""The real worker on a real, small model: its protocol, and that what it times is what the library computes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from edgesam_mobile.evaluate.probes import builtin_pictures
from edgesam_mobile.lab.launch import unpack_mask
from edgesam_mobile.lab.published import DECODER, ENCODER, export
from edgesam_mobile.lab.subjects import PublishedSubject, TorchSubject
from edgesam_mobile.model.choice import stability_score
from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.predictor import SamPredictor
from edgesam_mobile.model.sam import Sam

POINT = (200.0, 150.0)
PARTS = {"pre", "encode", "decode", "post", "frame"}
pytestmark = pytest.mark.slow  # every worker loads a runtime


def torch_job(checkpoint: Path, **changes: Any) -> dict[str, Any]:
    job = {
        "id": "pytorch-eager",
        "kind": "pytorch",
        "module": "torch",
        "weights": str(checkpoint),
        "image_size": 512,
        "score": "stability",
        "point_masks": 4,
        "threads": 1,
        "image": str(builtin_pictures()[0]),
        "point": list(POINT),
        "seconds": 0.1,
    }
    return {**job, **changes}


def work(job: dict[str, Any] | str) -> subprocess.CompletedProcess[str]:
    text = job if isinstance(job, str) else json.dumps(job)
    command = [sys.executable, "-m", "edgesam_mobile.lab.worker"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def records(standin_file: Path) -> list[dict[str, Any]]:
    done = work(torch_job(standin_file))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_worker_says_hello_its_phases_its_samples_and_the_end(records: list[dict[str, Any]]) -> None:
    assert records[0]["event"] == "hello" and records[-1]["event"] == "end"
    assert records[0]["versions"].keys() >= {"python", "numpy", "torch"}
    phases = [r["name"] for r in records if r["event"] == "phase"]
    assert phases == ["import", "load", "first", "warm-up", "measure"]
    assert {r["event"] for r in records} == {"hello", "phase", "sample", "end"}


def test_a_worker_is_bound_to_as_many_processors_as_threads(records: list[dict[str, Any]]) -> None:
    assert records[0]["cpus"] == sorted(os.sched_getaffinity(0))[:1]


def test_every_round_has_every_part_and_they_add_up_to_the_frame(records: list[dict[str, Any]]) -> None:
    end = records[-1]
    samples = [r for r in records if r["event"] == "sample"]
    assert end["rounds"] >= 3 and end["warm_up_rounds"] >= 6
    for prefix, rounds in (("", end["rounds"]), ("warm-", end["warm_up_rounds"]), ("first-", 1)):
        by_part = {part: [s for s in samples if s["stage"] == prefix + part] for part in PARTS}
        assert {len(found) for found in by_part.values()} == {rounds}
        for n in range(rounds):
            parts = sum(by_part[part][n]["ms"] for part in PARTS - {"frame"})
            assert parts <= by_part["frame"][n]["ms"]
    assert len([s for s in samples if s["stage"] == "load"]) == 1
    stamps = [s["monotonic_ns"] for s in samples]
    assert stamps == sorted(stamps)


def test_memory_is_that_of_the_worker_not_of_who_started_it(
    records: list[dict[str, Any]], standin_file: Path
) -> None:
    """Linux hands the starting process's ``ru_maxrss`` down; a benchmark started by a large one must not show it."""
    weights = standin_file.stat().st_size
    assert records[-1]["before_load_bytes"] + weights < records[-1]["peak_bytes"] < 4e9
    ballast = np.ones(1 << 26, np.float64)  # 512 MiB
    script = "from edgesam_mobile.lab.worker import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < ballast.nbytes / 5


def test_its_mask_is_the_predictors(
    records: list[dict[str, Any]], standin_file: Path, cat: npt.NDArray[np.uint8]
) -> None:
    predictor = SamPredictor(load_model(standin_file, image_size=512))
    predictor.set_image(cat)
    masks, scores, _ = predictor.predict([POINT], [1], num_multimask_outputs=4)
    mask = unpack_mask(records[-1]["mask"])
    assert mask.shape == cat.shape[:2]
    assert np.mean(mask == masks[int(np.argmax(scores))]) > 0.999


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": "missing.safetensors"}, "weights: cannot read"),
        ({"image": "missing.jpg"}, "picture: "),
        ({"module": "no_such_runtime"}, "No module named 'no_such_runtime'"),
        ({"kind": "artifact", "package": "nowhere"}, "package: "),
    ],
)
def test_what_goes_wrong_is_the_last_line_of_its_errors(
    standin_file: Path, changes: dict[str, Any], said: str
) -> None:
    done = work(torch_job(standin_file, **changes))
    assert done.returncode != 0
    assert said in done.stderr.splitlines()[-1]
    assert '"end"' not in done.stdout


def test_a_job_that_is_no_json_fails() -> None:
    assert work("not a job").returncode != 0


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, standin_file: Path) -> tuple[Path, Sam]:
    """The published-style export, with bilinear up-sampling as EdgeSAM's, and the model it was made of."""
    model = load_model(standin_file, upsample="bilinear", image_size=512)
    folder = tmp_path_factory.mktemp("published")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(model, folder, stability=True)
    return folder, model


def test_the_published_export_is_unfused_and_dynamic(published: tuple[Path, Sam]) -> None:
    onnx = pytest.importorskip("onnx")
    folder, _ = published
    decoder = onnx.load(str(folder / DECODER))
    coords = next(i for i in decoder.graph.input if i.name == "point_coords")
    assert coords.type.tensor_type.shape.dim[1].dim_param == "points"
    operations = {node.op_type for node in decoder.graph.node}
    assert {"Sin", "Cos", "Equal"} <= operations
    encoder = onnx.load(str(folder / ENCODER))
    assert sum(node.op_type == "Conv" for node in encoder.graph.node) > 107, "a fused encoder has 107"


@pytest.mark.parametrize("labels", [[1, -1], [1, 0, -1], [2, 3], [1, 0, 1, 1, 0, -1], [1, 2, 3]])
def test_the_published_export_decodes_any_number_of_points_as_pytorch(
    published: tuple[Path, Sam], labels: list[int]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, model = published
    session = onnxruntime.InferenceSession(str(folder / DECODER), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(1, 256, 32, 32, generator=generator)
    coords = 512 * torch.rand(1, len(labels), 2, generator=generator)
    inputs = {
        "image_embeddings": embedding.numpy(),
        "point_coords": coords.numpy(),
        "point_labels": np.array([labels], np.float32),
    }
    scores, masks = session.run(["scores", "masks"], inputs)

    kinds = torch.tensor(labels)
    clicks = (kinds == 0) | (kinds == 1)
    points = (coords[:, clicks], kinds[clicks][None].float()) if clicks.any() else None
    box = coords[:, kinds >= 2].reshape(1, 4) if (kinds >= 2).any() else None
    with torch.inference_mode():
        sparse, dense = model.prompt_encoder(points, box, None)
        expected, _ = model.mask_decoder(embedding, model.prompt_encoder.get_dense_pe(), sparse, dense, 4)
    assert np.abs(masks - expected.numpy()).max() < 1e-3 * np.abs(expected.numpy()).max()
    assert np.allclose(scores[0], stability_score(masks[0]), atol=1e-6)


def test_both_baselines_see_the_same_mask(
    published: tuple[Path, Sam], standin_file: Path, cat: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    # Worker processes set the number of threads for good; this one is shared by all tests.
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    folder, model = published
    eager = TorchSubject(torch_job(standin_file))
    eager._model = model  # with the up-sampling of the export
    exported = PublishedSubject(torch_job(standin_file, graphs=str(folder)))
    masks = []
    for subject in (eager, exported):
        embedding = subject.encode(subject.prepare(cat))
        masks.append(subject.finish(subject.decode(embedding, POINT)))
    assert np.mean(masks[0] == masks[1]) > 0.999
