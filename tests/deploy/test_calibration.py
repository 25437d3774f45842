"""Sets of pictures and prompts to calibrate with: the same every time, of every size of object, damage left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgesam_mobile.deploy.calibration import Calibration, View, graph_inputs
from edgesam_mobile.deploy.encoder import encoder_graph
from edgesam_mobile.errors import PictureError, UsageError
from edgesam_mobile.evaluate.calibration import calibration_set
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.model.standin import untrained_model
from edgesam_mobile.picture import PICTURES


@pytest.mark.parametrize("spec", [None, "generated:3", "random:2"])
def test_a_calibration_set_is_the_same_every_time_and_travels(spec: str | None, tmp_path: Path) -> None:
    first, said = calibration_set(spec, 2)
    again, _ = calibration_set(spec, 2)
    first.save(tmp_path / "set.npz")
    loaded = Calibration.load(tmp_path / "set.npz")
    assert first.sha256 == again.sha256 == loaded.sha256
    assert (loaded.source, loaded.pictures, loaded.real) == (first.source, first.pictures, spec != "random:2")
    assert first.prompts >= len(first.views) > 0
    assert bool(said) == (spec != "generated:3")  # built-in and random pictures are warned of


def test_one_picture_is_warned_of_and_none_refused(tmp_path: Path) -> None:
    _, said = calibration_set("generated:1", 8)
    assert said == ["calibrated on a single picture: ranges of others may be wider"]
    with pytest.raises(PictureError):
        calibration_set(f"images:{tmp_path}", 8)
    with pytest.raises(UsageError, match="random"):
        calibration_set("random:many", 8)


@pytest.mark.parametrize("spec", [None, "random:1", "generated:4"])
def test_decoders_are_calibrated_on_small_objects_too(spec: str | None) -> None:
    """On large ones alone, integers of the decoder cost 25 points of small objects' masks."""
    for view in calibration_set(spec, 4)[0].views:
        areas = [
            float(np.ptp(xy[:, 0]) * np.ptp(xy[:, 1])) for xy, labels in view.prompts if labels.tolist() == [2, 3]
        ]
        whole = view.image.shape[0] * view.image.shape[1]
        assert min(areas) < 0.05 * whole and max(areas) > 4 * min(areas)


def test_damaged_pictures_are_left_out_of_the_calibration_and_named(tmp_path: Path) -> None:
    (tmp_path / "damaged.jpg").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"no picture of images:.* can be read"):
        calibration_set(f"images:{tmp_path}", 8)
    for name in ("a.jpg", "b.jpg"):
        shutil.copyfile(PICTURES / "cat.jpg", tmp_path / name)
    found, said = calibration_set(f"images:{tmp_path}", 8)
    assert (found.pictures, len(found.views)) == (2, 2)
    assert len(said) == 1 and said[0].startswith("damaged.jpg left out of the calibration: ")


def test_other_pixels_or_prompts_are_another_set() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    prompt = (np.zeros((1, 2), np.float32), np.ones(1, np.float32))
    sets = [
        Calibration("x", 1, (View(image, (prompt,)),)),
        Calibration("x", 1, (View(image + 1, (prompt,)),)),
        Calibration("x", 1, (View(image, (prompt, prompt)),)),
    ]
    assert len({one.sha256 for one in sets}) == 3


def test_decoders_are_calibrated_with_embeddings_points_and_masks() -> None:
    from edgesam_mobile.deploy.decoder import decoder_graph

    model: Sam = untrained_model("edge-sam-tiny", image_size=256)
    encoder, decoder = encoder_graph(model), decoder_graph(model, slots=4, mask_input=True)
    calibration, _ = calibration_set("generated:1", 1)
    samples = graph_inputs(decoder, encoder, calibration)
    assert len(samples) == 2 * calibration.prompts
    for sample in samples:
        assert {name: tuple(t.shape) for name, t in sample.items()} == {p.name: p.shape for p in decoder.inputs}
    assert {float(s["has_mask_input"]) for s in samples} == {0.0, 1.0}
