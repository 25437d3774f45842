"""The runtime of an older phone, in an environment of its own: what it runs, and what is said without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call, refusal

from edgesam_mobile.errors import EnvironmentMissing, PackageError
from edgesam_mobile.package.manifest import FileRecord, GraphRecord
from edgesam_mobile.runtime import old_tflite
from edgesam_mobile.runtime.session import SessionOptions, open_session

PORT: dict[str, Any] = {"name": "image", "shape": [1], "dtype": "float32", "layout": "NCHW", "meaning": ""}
RECORD = GraphRecord(
    file=FileRecord(path="encoder", sha256="0" * 64, bytes=1),
    inputs=[PORT], outputs=[PORT], op_types={"conv": 1}, parameters=1,
)  # fmt: skip


@pytest.mark.slow
def test_without_the_environment_offline_is_refused_before_any_work(
    edge_sam_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESAM_CACHE", str(tmp_path / "cache"))
    told = refusal(call("verify", edge_sam_package, "--old-runtimes", "--offline"), 5)
    assert "tflite-runtime==2.14.0 is not made yet" in told and "without --offline" in told


@pytest.mark.slow
def test_an_environment_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        EnvironmentMissing, match=r"tflite-runtime==2\.14\.0 cannot be made: .*No matching distribution"
    ):
        old_tflite.environment()
    assert [path.name for path in (tmp_path / "cache").rglob("*")] == ["runtimes"]


def test_an_environment_whose_python_is_gone_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file stands in for the Python of an environment, which takes pip's index to make."""
    monkeypatch.setenv("EDGESAM_CACHE", str(tmp_path / "cache"))
    made: list[Path] = []

    def make(command: list[str]) -> None:
        if "venv" in command:
            made.append(Path(command[-1]))
            (made[-1] / "bin").mkdir()
            (made[-1] / "bin" / "python").touch()

    monkeypatch.setattr(old_tflite, "_call", make)
    python = old_tflite.environment()
    assert python.exists() and old_tflite.environment() == python and len(made) == 1
    python.unlink()
    python.symlink_to(tmp_path / "no-such-python")
    with pytest.raises(EnvironmentMissing, match="is not made yet"):
        old_tflite.environment(offline=True)
    assert old_tflite.environment() == python and len(made) == 2
    assert python.exists() and not python.is_symlink()
    assert [path.name for path in python.parents[2].iterdir()] == [python.parents[1].name]


@pytest.mark.slow
@pytest.mark.network
def test_a_model_answers_as_on_the_runtime_of_today_and_damage_is_one_line(tmp_path: Path) -> None:
    from edgesam_mobile.deploy import tflite
    from edgesam_mobile.deploy.encoder import encoder_graph
    from edgesam_mobile.deploy.precision import Plan
    from edgesam_mobile.deploy.worker import describe
    from edgesam_mobile.model.standin import untrained_model

    graph = encoder_graph(untrained_model("edge-sam-tiny", image_size=256), channels_last=True)
    path = tmp_path / "encoder.tflite"
    report = tflite.export(graph, {path: Plan("fp16")}, [])[path]
    record = GraphRecord(file=RECORD.file, op_types=report.op_types, **describe(graph, report.dtypes))
    inputs: Any = {"image": graph.examples()[0].numpy()}
    old, new = (
        open_session(path, record, name, SessionOptions(threads=1)).run(inputs)["image_embeddings"]
        for name in ("old-tflite", "tflite")
    )
    assert np.abs(old).max() > 0 and np.abs(old - new).max() < 0.01 * np.abs(new).max()
    session = open_session(path, record, "old-tflite", SessionOptions(threads=1))
    with pytest.raises(RuntimeError):
        session.run({"no such input": np.zeros(1)})
    path.write_bytes(b"no model" * 100)
    with pytest.raises(PackageError, match=r"tflite-runtime 2\.14 cannot load"):
        open_session(path, record, "old-tflite", SessionOptions(threads=1))


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.filterwarnings("ignore:Warning. Enabling `experimental_preserve_all_tensors`")  # the quantiser's own
def test_what_is_compressed_of_the_bundled_weights_loads_there_and_gives_the_same_masks(tmp_path: Path) -> None:
    """That it loads is not enough: linear layers in integers did so, and gave empty masks."""
    from edgesam_mobile.deploy import tflite
    from edgesam_mobile.deploy.calibration import graph_inputs
    from edgesam_mobile.deploy.decoder import decoder_graph
    from edgesam_mobile.deploy.encoder import encoder_graph
    from edgesam_mobile.deploy.formats import FORMATS
    from edgesam_mobile.deploy.precision import Plan
    from edgesam_mobile.deploy.worker import describe
    from edgesam_mobile.evaluate.calibration import calibration_set
    from edgesam_mobile.evaluate.metrics import mask_iou
    from edgesam_mobile.model.load import load_model

    form, model = FORMATS["tflite"], load_model("edge-sam-open", upsample="bilinear", image_size=256)
    encoder = encoder_graph(model, channels_last=True)
    decoder = decoder_graph(model, score="iou", channels_last=True)  # as of MobileSAM: a linear layer's own answer
    calibration, _ = calibration_set("generated:1", 1)
    plain = {name: Plan(name) for name in ("fp32", *form.compressed)}
    answers: dict[tuple[str, str], dict[str, Any]] = {}
    for graph in (encoder, decoder):
        plans = {**plain, "recommended": form.recommendation(graph.name, model.architecture)}
        samples = graph_inputs(graph, encoder, calibration)[:1]
        given = {name: tensor.numpy() for name, tensor in samples[0].items()}
        files = {tmp_path / f"{graph.name}-{name}.tflite": plan for name, plan in plans.items()}
        for name, (path, report) in zip(plans, tflite.export(graph, files, samples).items(), strict=True):
            record = GraphRecord(file=RECORD.file, op_types=report.op_types, **describe(graph, report.dtypes))
            for runtime in ("tflite", "old-tflite"):
                session = open_session(path, record, runtime, SessionOptions(threads=1))
                answers[name, runtime] = session.run({**given, **answers.get((name, runtime), {})})
    assert {answer["scores"].dtype.name for answer in answers.values()} == {"float32"}
    masks = {key: np.asarray(answer["masks"]) > 0 for key, answer in answers.items()}
    assert masks["fp32", "tflite"].any()
    for (name, runtime), mask in masks.items():
        assert mask_iou(mask, masks["fp32", "tflite"]) > 0.9, (name, runtime)
