"""Targets and published figures: what comes along, and every way in which a file of one's own can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesam_mobile.errors import UsageError
from edgesam_mobile.lab.targets import Evidence, load_target, published, target_names

GOOD = """
title = "A kiosk"
p90_ms = 80
[device]
kind = "android"
name = "the kiosk's tablet"
models = ["Tab 9"]
[evidence]
frames = 50
"""


def test_the_iphone_14_comes_along() -> None:
    assert target_names() == ["iphone14-30fps"]
    target = load_target("iphone14-30fps")
    assert (target.p90_ms, target.device.kind) == (33.3, "ios")
    assert target.device.models == ("iPhone14,7", "iPhone14,8")
    assert target.evidence == Evidence(frames=100, launches=5, thermal="fair", mask_iou=0.95)


def test_a_file_of_ones_own_is_a_target_with_defaults_for_the_evidence(tmp_path: Path) -> None:
    path = tmp_path / "kiosk.toml"
    path.write_text(GOOD, encoding="utf-8")
    target = load_target(str(path))
    assert (target.title, target.p90_ms, target.device.models) == ("A kiosk", 80.0, ("Tab 9",))
    assert target.evidence == Evidence(frames=50)


@pytest.mark.parametrize(
    ("before", "after", "message", "hint"),
    [
        ("p90_ms", "p9_ms", "unknown option p9_ms", "did you mean p90_ms?"),
        ("models", "model", "unknown option device.model", "did you mean models?"),
        ("frames", "pictures", "unknown option evidence.pictures", "known: frames, launches, thermal, mask_iou"),
        ("[evidence]", "[evidense]", "unknown option evidense", "did you mean evidence?"),
        ('title = "A kiosk"', "", "title is missing", "see the targets"),
        ("[device]", "[evidence.device]", "unknown option evidence.device", "known: frames"),
        ('"android"', '"phone"', "device.kind: input should be 'android', 'ios'", "see the targets"),
        ("80", "0", "p90_ms: input should be greater than 0", "see the targets"),
        ("80", "-1", "p90_ms: input should be greater than 0", "see the targets"),
        ("80", "nan", "p90_ms: input should be a finite number", "see the targets"),
        ("80", "inf", "p90_ms: input should be a finite number", "see the targets"),
        ("80", '"80"', "p90_ms: input should be a valid number", "see the targets"),
        ("80", "1979-05-27", "p90_ms: input should be a valid number", "see the targets"),
        ('["Tab 9"]', "[]", "device.models: tuple should have at least 1 item", "see the targets"),
        ('["Tab 9"]', '"Tab 9"', "device.models: input should be a valid array", "see the targets"),
        ('["Tab 9"]', "[9]", "device.models.0: input should be a valid string", "see the targets"),
        ("50", "true", "evidence.frames: input should be a valid integer", "see the targets"),
        ("50", "0", "evidence.frames: input should be greater than or equal to 1", "see the targets"),
        ("frames = 50", "launches = 1", "evidence.launches: input should be greater than or equal to 2", "see the"),
        ("frames = 50", "mask_iou = 1.5", "evidence.mask_iou: input should be less than or equal to 1", "see the"),
        ("frames = 50", 'thermal = "warm"', "evidence.thermal: input should be 'nominal', 'fair'", "see the targets"),
        ("frames = 50", 'delegate = "any"', "evidence.delegate: input should be 'told' or 'asked'", "see the"),
        ("title =", "title", "is no TOML file", "see the targets"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, before: str, after: str, message: str, hint: str) -> None:
    assert before in GOOD
    path = tmp_path / "wrong.toml"
    path.write_text(GOOD.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(UsageError) as raised:
        load_target(str(path))
    assert message in raised.value.message and str(path) in raised.value.message
    assert "\n" not in raised.value.message
    assert (raised.value.hint or "").startswith(hint)


def test_a_file_that_is_no_text_is_no_target(tmp_path: Path) -> None:
    path = tmp_path / "picture.toml"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UsageError, match="is no TOML file"):
        load_target(str(path))


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("iphone14-60fps", "there is no target 'iphone14-60fps'", "did you mean iphone14-30fps?"),
        ("moon", "there is no target 'moon'", "there are iphone14-30fps, and FILE.toml"),
        ("published", "there is no target 'published'", "there are iphone14-30fps"),
        ("nowhere.toml", "cannot read the target nowhere.toml: No such file", "give a TOML file"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        load_target(name)
    assert raised.value.message.startswith(message) and (raised.value.hint or "").startswith(hint)


def test_published_figures_are_consistent_and_each_has_a_source() -> None:
    figures = published()
    assert len(figures) == 9
    for figure in figures:
        assert figure.source and (figure.ms or figure.fps)
        if figure.fps and len(figure.ms) == 1:
            # Published rounded: 38.7 FPS is 25.8 ms, about 14 ms is 70 FPS.
            assert 1000 / figure.fps == pytest.approx(figure.ms[0], rel=0.03)
        assert list(figure.ms) == sorted(figure.ms)
    assert [figure.ms_text for figure in figures][:5] == ["25.8", "14", "–", "–", "3000 to 4000"]
