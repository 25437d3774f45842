"""``predict``: any picture and prompt gives a mask and an overlay, or one line and nothing half-written."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from command_line import call, entries, refusal
from PIL import Image
from safetensors.torch import load_file
from typer.testing import Result

from edgesam_mobile.evaluate.metrics import mask_iou
from edgesam_mobile.model.standin import write_standin
from edgesam_mobile.weights.checkpoint import Metadata, read_checkpoint, write_checkpoint

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CAT = EXAMPLES / "cat.jpg"
RUNNABLE = ("tflite-fp32", "tflite-fp16", "executorch-xnnpack-fp32", "onnx-fp32")

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_standin("edge-sam-tiny", tmp_path_factory.mktemp("weights") / "small.safetensors", image_size=256)


@pytest.fixture
def predict(small_weights: Path, tmp_path: Path) -> Callable[..., Result]:
    """Runs ``predict`` with stand-in weights into ``tmp_path/out/mask.png``, unless other options come after."""

    def run(picture: Path, *options: object) -> Result:
        return call("predict", picture, "--weights", small_weights, "-o", tmp_path / "out" / "mask.png", *options)

    return run


@pytest.fixture(scope="module")
def cat_answer(small_weights: Path, cat: Pixels, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the stand-in says about the cat, in colour and in grey."""
    folder = tmp_path_factory.mktemp("plain")
    answers = {}
    for name, pixels in (("colour", cat), ("grey", np.repeat(grey(cat)[..., None], 3, axis=2))):
        Image.fromarray(pixels).save(folder / f"{name}.png")
        told = call(
            "predict",
            folder / f"{name}.png",
            "--point",
            "245,140",
            "--weights",
            small_weights,
            "-o",
            folder / "m",
            "--json",
        )
        answers[name] = answer(told)
    assert 0.01 < answers["colour"]["area_share"] < 0.99
    assert answers["colour"]["mask"] != answers["grey"]["mask"]
    return answers


def answer(told: Result) -> dict[str, Any]:
    """The parts of an answer that follow from the picture and the prompt."""
    assert told.exit_code == 0, told.output
    data = json.loads(told.stdout)
    mask = hashlib.sha256(Path(data["mask"]).read_bytes()).hexdigest()
    return {**{key: data[key] for key in ("score", "index", "area_share")}, "mask": mask}


def grey(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).convert("L"))


def saved(path: Path, pixels: npt.NDArray[Any], **options: Any) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def turned(path: Path, pixels: Pixels) -> Path:
    """The picture on its side, with the EXIF entry that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(path, np.ascontiguousarray(np.rot90(pixels)), exif=exif)


KINDS: dict[str, tuple[str, Callable[[Path, Pixels], Path]]] = {
    "grey": ("grey", lambda path, cat: saved(path, grey(cat))),
    "opaque RGBA": ("colour", lambda path, cat: saved(path, np.dstack([cat, np.full_like(cat[..., 0], 255)]))),
    "16-bit grey": ("grey", lambda path, cat: saved(path, grey(cat).astype(np.uint16) * 257)),
    "EXIF-rotated": ("colour", turned),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_any_kind_gives_the_mask_of_the_same_picture_in_rgb(
    kind: str, predict: Callable[..., Result], cat: Pixels, cat_answer: dict[str, Any], tmp_path: Path
) -> None:
    same_as, write = KINDS[kind]
    told = predict(write(tmp_path / "picture.png", cat), "--point", "245,140", "--json")
    assert answer(told) == cat_answer[same_as]
    assert_mask_and_overlay(tmp_path / "out", width=cat.shape[1], height=cat.shape[0])


def test_transparent_parts_lie_on_white(
    predict: Callable[..., Result], cat: Pixels, cat_answer: dict[str, Any], tmp_path: Path
) -> None:
    alpha = np.full_like(cat[..., 0], 255)
    alpha[:100] = 0
    on_white = cat.copy()
    on_white[:100] = 255
    clear = predict(saved(tmp_path / "clear.png", np.dstack([cat, alpha])), "--point", "245,140", "--json")
    white = predict(saved(tmp_path / "white.png", on_white), "--point", "245,140", "--json")
    assert answer(clear) == answer(white) != cat_answer["colour"]


@pytest.mark.parametrize(("width", "height"), [(1, 60), (60, 1), (1, 1), (3, 1000)])
def test_the_thinnest_pictures_give_masks_of_their_size(
    predict: Callable[..., Result], tmp_path: Path, width: int, height: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    told = predict(saved(tmp_path / "thin.png", pixels), "--point", f"{width / 2},{height / 2}", "--quiet")
    assert told.exit_code == 0, told.output
    assert_mask_and_overlay(tmp_path / "out", width=width, height=height)


def assert_mask_and_overlay(folder: Path, *, width: int, height: int) -> None:
    assert entries(folder) == ["mask-overlay.png", "mask.png"]
    with Image.open(folder / "mask.png") as mask, Image.open(folder / "mask-overlay.png") as drawn:
        assert (mask.mode, mask.size) == ("L", (width, height))
        assert set(np.unique(np.asarray(mask))) <= {0, 255}
        assert (drawn.mode, drawn.size) == ("RGB", (width, height))


CORRUPT: dict[str, bytes] = {
    "empty": b"",
    "text": b"this is not a picture\n",
    "cut short": CAT.read_bytes()[:20_000],
    "header only": b"\x89PNG\r\n\x1a\n" + bytes(40),
    "zeroed": CAT.read_bytes()[:600] + bytes(40_000),
}


@pytest.mark.parametrize("kind", CORRUPT)
def test_a_corrupt_picture_is_one_line_and_leaves_nothing_behind(
    kind: str, predict: Callable[..., Result], tmp_path: Path
) -> None:
    picture = tmp_path / "bad.jpg"
    picture.write_bytes(CORRUPT[kind])
    assert str(picture) in refusal(predict(picture, "--point", "1,1"), 8)
    assert entries(tmp_path) == ["bad.jpg"]


@pytest.mark.parametrize("place", ["missing.jpg", "."])
def test_a_picture_that_is_no_file_is_one_line(place: str, predict: Callable[..., Result], tmp_path: Path) -> None:
    refusal(predict(tmp_path / place, "--point", "1,1"), 8)
    assert entries(tmp_path) == []


WRONG_PROMPTS: dict[str, tuple[tuple[str, ...], str]] = {
    "right of the picture": (("--point", "452,10"), "is outside the picture"),
    "above the picture": (("--point", "10,-1"), "is outside the picture"),
    "second point outside": (("--point", "10,10", "--point", "10,301,0"), "point (10, 301) is outside"),
    "box outside": (("--box", "0,0,452,10"), "is outside the picture"),
    "box the wrong way round": (("--box", "100,100,50,150"), "is empty"),
    "box without area": (("--box", "100,100,100,150"), "is empty"),
    "no such label": (("--point", "10,10,2"), "2 is no point label"),
    "not a number": (("--point", "nan,10"), "not every number is finite"),
}


@pytest.mark.parametrize("kind", WRONG_PROMPTS)
def test_a_prompt_that_does_not_fit_the_picture_is_one_line(
    kind: str, predict: Callable[..., Result], tmp_path: Path
) -> None:
    options, said = WRONG_PROMPTS[kind]
    assert said in refusal_without_hint(predict(CAT, *options), 2)
    assert entries(tmp_path) == []


@pytest.mark.parametrize("options", [("--point", "a,b"), ("--point", "1"), ("--box", "1,2,3"), ("--box", ""), ()])
def test_a_prompt_of_another_form_is_shown_the_right_one(
    options: tuple[str, ...], predict: Callable[..., Result], tmp_path: Path
) -> None:
    assert "x,y" in refusal_without_hint(predict(CAT, *options), 2) or options[0] == "--box"
    assert entries(tmp_path) == []


def refusal_without_hint(told: Result, exit_code: int) -> str:
    """As ``refusal``, for those whose first half already says what to do."""
    assert (told.exit_code, told.stdout) == (exit_code, ""), told.output
    (line,) = [line for line in told.stderr.splitlines() if not line.startswith("warning: ")]
    assert line.startswith("error: ")
    return line


def test_points_and_boxes_take_several_forms(predict: Callable[..., Result], cat_answer: dict[str, Any]) -> None:
    assert answer(predict(CAT, "--point", "245,140", "--json")) == answer(
        predict(CAT, "--point", " 245.0, 140 ,1", "--json")
    )
    negative = answer(predict(CAT, "--point", "245,140", "--point", "20,20,0", "--json"))
    boxed = answer(predict(CAT, "--box", "28,0,400,288", "--json"))
    both = answer(predict(CAT, "--box", "28,0,400,288", "--point", "20,280,0", "--json"))
    assert len({a["mask"] for a in (negative, boxed, both, cat_answer["colour"])}) == 4
    assert boxed["index"] == both["index"] == 0


def test_the_three_ways_of_telling_the_result(predict: Callable[..., Result], tmp_path: Path) -> None:
    mask, drawn = tmp_path / "out" / "mask.png", tmp_path / "out" / "mask-overlay.png"
    told = predict(CAT, "--point", "245,140", "--quiet")
    assert told.stdout.splitlines() == [str(mask), str(drawn)]
    data = json.loads(predict(CAT, "--point", "245,140", "--json").stdout)
    assert data["schema"] == "edgesam.predict/1"
    assert (data["image"], data["mask"], data["overlay"]) == (str(CAT), str(mask), str(drawn))
    assert data["runtime"] == "PyTorch"
    assert data["encode_ms"] > 0 < data["decode_ms"]
    with Image.open(mask) as image:
        assert np.asarray(image).mean() / 255 == pytest.approx(data["area_share"])
    human = predict(CAT, "--point", "245,140").stdout
    assert f"wrote {mask} and {drawn}" in human
    assert f"covers {data['area_share']:.1%} of the picture" in human


def test_a_missing_output_folder_is_made_and_an_older_mask_replaced(
    predict: Callable[..., Result], tmp_path: Path
) -> None:
    target = tmp_path / "a" / "b" / "mask.png"
    assert predict(CAT, "--point", "245,140", "-o", target).exit_code == 0
    first = target.read_bytes()
    assert predict(CAT, "--box", "0,0,20,20", "-o", target).exit_code == 0
    assert target.read_bytes() != first
    assert entries(target.parent) == ["mask-overlay.png", "mask.png"]


def test_an_output_that_cannot_be_written_is_one_line(predict: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    for target in ("/proc/nowhere/mask.png", tmp_path / "file" / "mask.png", tmp_path / "folder"):
        assert str(target) in refusal(predict(CAT, "--point", "245,140", "-o", target), 12)
    assert "name one" in refusal(predict(CAT, "--point", "245,140", "-o", "."), 2)
    assert entries(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("output", ["cat.png", "x/../cat.png"])
def test_the_picture_itself_is_never_overwritten(
    output: str, predict: Callable[..., Result], tmp_path: Path, cat: Pixels
) -> None:
    picture = saved(tmp_path / "cat.png", cat)
    before = picture.read_bytes()
    (tmp_path / "x").mkdir()
    assert "would replace the picture" in refusal(predict(picture, "--point", "1,1", "-o", tmp_path / output), 2)
    assert picture.read_bytes() == before
    drawn = saved(tmp_path / "cat-overlay.png", cat)
    refusal(predict(drawn, "--point", "1,1", "-o", picture), 2)


def test_a_full_disk_is_one_line_and_leaves_the_older_mask(predict: Callable[..., Result], small_disk: Path) -> None:
    old = small_disk / "mask.png"
    old.write_bytes(b"old")
    with pytest.raises(OSError, match="No space"), (small_disk / "filler").open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    assert "no space left" in refusal(predict(CAT, "--point", "245,140", "-o", old), 12)
    assert old.read_bytes() == b"old"
    assert entries(small_disk) == ["filler", "mask.png"]


def cut(source: Path, target: Path) -> Path:
    content = source.read_bytes()
    target.write_bytes(content[: len(content) // 2])
    return target


def with_state(source: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    state = load_file(source)
    change(state)
    return write_checkpoint(target, state, read_checkpoint(source).metadata)


def pickled(source: Path, target: Path) -> Path:
    return with_state(source, target, lambda state: None)


BIAS = "mask_decoder.iou_prediction_head.layers.2.bias"
BAD_WEIGHTS: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "truncated safetensors": (lambda good, folder: cut(good, folder / "cut.safetensors"), "cut.safetensors"),
    "truncated pickle": (lambda good, folder: cut(pickled(good, folder / "a.pt"), folder / "cut.pt"), "cut.pt"),
    "mis-shaped": (
        lambda good, folder: with_state(good, folder / "w.pt", lambda s: s.update({BIAS: torch.zeros(5)})),
        f"mis-shaped {BIAS}",
    ),
    "incomplete": (
        lambda good, folder: with_state(good, folder / "w.safetensors", lambda s: s.pop(BIAS)),
        f"missing {BIAS}",
    ),
    "missing": (lambda good, folder: folder / "no.pth", "no.pth"),
}


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_bad_weights_are_one_line_and_leave_nothing_behind(
    kind: str, predict: Callable[..., Result], small_weights: Path, tmp_path: Path
) -> None:
    make, said = BAD_WEIGHTS[kind]
    bad = make(small_weights, tmp_path)
    before = entries(tmp_path)
    assert said in refusal(predict(CAT, "--point", "245,140", "--weights", bad), 9)
    assert entries(tmp_path) == before


# Those that only show when a model is made of them show in an exporter's own process.
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] * (k in ("mis-shaped", "incomplete"))) for k in BAD_WEIGHTS]
)
def test_nothing_is_built_from_bad_weights(
    kind: str, small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, said = BAD_WEIGHTS[kind]
    bad = make(small_weights, tmp_path)
    before = entries(tmp_path)
    monkeypatch.setenv("EDGESAM_CACHE", str(tmp_path / "cache"))
    assert said in refusal(call("build", "--target", "host", "--weights", bad, "-o", tmp_path / "out"), 9)
    assert entries(tmp_path) in (before, sorted([*before, "cache", "cache/build"]))


def test_weights_warn_of_what_must_not_be_overlooked(
    predict: Callable[..., Result], small_weights: Path, tmp_path: Path
) -> None:
    assert "warning: untrained stand-in weights" in predict(CAT, "--point", "245,140", "--quiet").stderr
    state = read_checkpoint(small_weights).state
    forbidden = replace(
        read_checkpoint(small_weights).metadata, trained=True, licence="S-Lab License 1.0", commercial_use=False
    )
    write_checkpoint(tmp_path / "forbidden.safetensors", state, forbidden)
    told = predict(CAT, "--point", "245,140", "--quiet", "--weights", tmp_path / "forbidden.safetensors")
    assert told.stderr.splitlines() == ["warning: the weights' licence (S-Lab License 1.0) forbids commercial use"]
    write_checkpoint(tmp_path / "unknown.pt", state, Metadata())
    told = predict(CAT, "--point", "245,140", "--json", "--weights", tmp_path / "unknown.pt")
    assert "warning: the weights' licence is not known" in told.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "point"), [("cat.jpg", "245,140"), ("coffee.jpg", "300,200")])
def test_every_artefact_gives_the_mask_that_pytorch_gives(
    name: str, point: str, mobile_sam_path: Path, mobile_sam_package: Path, tmp_path: Path
) -> None:
    assert mobile_sam_path.is_file()
    options = ("--weights", "mobile-sam", "--point", point, "--quiet")
    told = call("predict", EXAMPLES / name, *options, "-o", tmp_path / "pytorch.png")
    assert (told.exit_code, told.stderr) == (0, "")
    with Image.open(tmp_path / "pytorch.png") as image:
        expected = np.asarray(image) > 0
    assert 0.01 < expected.mean() < 0.99
    for artefact in RUNNABLE:
        where = f"{mobile_sam_package}:{artefact}"
        target = tmp_path / f"{artefact}.png"
        told = call("predict", EXAMPLES / name, "--point", point, "--artifact", where, "-o", target, "--json")
        assert json.loads(told.stdout)["runtime"] == artefact
        with Image.open(target) as image:
            assert mask_iou(np.asarray(image) > 0, expected) > (0.98 if "fp16" in artefact else 0.99), artefact


@pytest.mark.slow
def test_an_artefact_is_chosen_by_its_name_or_the_start_of_it(edge_sam_package: Path, tmp_path: Path) -> None:
    def runtime(suffix: str) -> str:
        where = f"{edge_sam_package}{suffix}"
        told = call("predict", CAT, "--point", "245,140", "--artifact", where, "-o", tmp_path / "m.png", "--json")
        return str(json.loads(told.stdout)["runtime"])

    assert runtime(":onnx") == runtime(":onnx-fp32") == "onnx-fp32"
    assert runtime("") in RUNNABLE


@pytest.mark.slow
def test_artefacts_that_do_not_run_here_or_do_not_exist_are_one_line(edge_sam_package: Path, tmp_path: Path) -> None:
    def told(suffix: str, *options: str) -> Result:
        where, target = f"{edge_sam_package}{suffix}", tmp_path / "m.png"
        return call("predict", CAT, "--point", "245,140", "--artifact", where, "-o", target, *options)

    assert "tflite-fp32" in refusal(told(":nonsense"), 2)
    assert "--slots 7" in refusal(told(":onnx", *["--point", "9,9"] * 6), 2)
    assert told(":onnx", "--threads", "0").exit_code == 2
    refusal(call("predict", CAT, "--point", "1,1", "--artifact", tmp_path, "-o", tmp_path / "m.png"), 11)
    assert entries(tmp_path) == []


def test_an_artefact_and_weights_together_are_refused(predict: Callable[..., Result], tmp_path: Path) -> None:
    told = predict(CAT, "--point", "1,1", "--artifact", tmp_path)
    assert "give --artifact or --weights, not both" in refusal(told, 2)


def test_a_folder_s_name_may_hold_a_colon(bare_package: Path, tmp_path: Path) -> None:
    package = shutil.copytree(bare_package, tmp_path / "a:b")

    def said(where: object, code: int) -> str:
        return refusal(call("predict", CAT, "--point", "1,1", "--artifact", where, "-o", tmp_path / "m.png"), code)

    assert f"{package} has no artefact 'nonsense' that runs here" in said(f"{package}:nonsense", 2)
    # Its one artefact is found, and its file is not.
    for where in (package, f"{package}:coreml", f"{package}:coreml-fp32"):
        assert f"{package / 'nothing'} is missing" in said(where, 11)
    assert "no such folder" in said(tmp_path / "missing", 11)
    assert f"{tmp_path / 'missing'} is not a package" in said(f"{tmp_path / 'missing'}:coreml", 11)


@pytest.mark.slow
def test_masks_of_a_stand_in_artefact_come_with_the_warning(edge_sam_package: Path, tmp_path: Path) -> None:
    told = call(
        "predict", CAT, "--point", "245,140", "--artifact", f"{edge_sam_package}:onnx", "-o", tmp_path / "m", "-q"
    )
    assert "warning: untrained stand-in weights" in told.stderr
