"""Files into models: whole and fitting ones load, everything else is refused with the reason."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from edgesam_mobile.errors import UsageError, WeightsError
from edgesam_mobile.files import sha256_of
from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.registry import build_model
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.model.standin import untrained_model, write_standin
from edgesam_mobile.weights.checkpoint import Metadata, write_checkpoint
from edgesam_mobile.weights.registry import entry

NORM = "image_encoder.features.7.token_mixer.0.conv.bn.running_mean"


@pytest.fixture
def state(small_standin: Sam) -> dict[str, Tensor]:
    """A good EdgeSAM state dict, free to be spoilt."""
    return small_standin.state_dict()


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Sam]:
    """Write a state dict to a file and load that."""

    def write_and_load(state: dict[str, Tensor], metadata: Metadata | None = None, **options: object) -> Sam:
        suffix = "pt" if metadata is None else "safetensors"
        path = write_checkpoint(tmp_path / f"model.{suffix}", state, metadata or Metadata())
        return load_model(path, **options)

    return write_and_load


def test_a_good_state_dict_loads_bit_for_bit(load: Callable[..., Sam], state: dict[str, Tensor]) -> None:
    model = load(state)
    assert not model.training
    loaded = model.state_dict()
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[key], state[key]) for key in state)


def test_a_missing_key_is_named(load: Callable[..., Sam], state: dict[str, Tensor]) -> None:
    del state[NORM]
    with pytest.raises(WeightsError, match=f"does not fit edge-sam: missing {NORM}$"):
        load(state)


def test_an_unexpected_key_is_named(load: Callable[..., Sam], state: dict[str, Tensor]) -> None:
    state["rpn_head.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"unexpected rpn_head\.weight$"):
        load(state)


@pytest.mark.parametrize("shape", [(95,), (96, 1), ()])
def test_a_mis_shaped_tensor_is_named(
    load: Callable[..., Sam], state: dict[str, Tensor], shape: tuple[int, ...]
) -> None:
    state[NORM] = torch.zeros(shape)
    with pytest.raises(WeightsError, match=f"mis-shaped {NORM}$"):
        load(state)


def test_keys_cut_short_are_named_on_both_sides(load: Callable[..., Sam], state: dict[str, Tensor]) -> None:
    cut = "mask_decoder.iou_token.weight"
    state[cut.removesuffix(".weight")] = state.pop(cut)
    with pytest.raises(
        WeightsError, match=r"missing mask_decoder.iou_token.weight; unexpected mask_decoder.iou_token$"
    ):
        load(state)


def test_many_faults_are_named_up_to_three_and_counted(load: Callable[..., Sam], state: dict[str, Tensor]) -> None:
    encoder = {key: tensor for key, tensor in state.items() if key.startswith("image_encoder.")}
    with pytest.raises(WeightsError, match=r"missing mask_decoder\.\S+, \S+, \S+ and 134 more$") as caught:
        load(encoder)
    assert "--join" in (caught.value.hint or "")


def test_a_fault_names_the_file(load: Callable[..., Sam], state: dict[str, Tensor], tmp_path: Path) -> None:
    del state[NORM]
    with pytest.raises(WeightsError) as caught:
        load(state)
    assert str(tmp_path / "model.pt") in caught.value.message


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_file_cut_short_is_refused(state: dict[str, Tensor], tmp_path: Path, suffix: str) -> None:
    path = write_checkpoint(tmp_path / f"model.{suffix}", state, Metadata(architecture="edge-sam"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError) as caught:
        load_model(path)
    assert str(path) in caught.value.message


def test_weights_of_another_architecture_are_refused(load: Callable[..., Sam], state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match="does not fit mobile-sam"):
        load(state, Metadata(architecture="mobile-sam"))


def test_an_architecture_nobody_knows_is_refused(load: Callable[..., Sam], state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match="'edge-sam-2'") as caught:
        load(state, Metadata(architecture="edge-sam-2"))
    assert "mobile-sam" in (caught.value.hint or "")


def test_tensors_that_tell_no_architecture_are_refused(load: Callable[..., Sam]) -> None:
    with pytest.raises(WeightsError, match="cannot tell the architecture"):
        load({"weight": torch.zeros(1)})


@pytest.mark.parametrize(("name", "near"), [("mobile-sma", "mobile-sam"), ("edge_sam", "edge-sam")])
def test_an_unknown_name_gives_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        load_model(name)
    assert caught.value.hint == f"did you mean {near}?"


def test_an_unknown_architecture_gives_the_nearest() -> None:
    with pytest.raises(UsageError, match="'edgesam'") as caught:
        build_model("edgesam")
    assert caught.value.hint == "did you mean edge-sam?"


def test_a_missing_file_is_no_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pt"):
        load_model(str(tmp_path / "absent.pt"))


def test_half_precision_weights_become_a_single_precision_model(
    load: Callable[..., Sam], state: dict[str, Tensor]
) -> None:
    model = load({key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.state_dict()[NORM], state[NORM].half().float())


def test_upsampling_is_what_the_file_says_unless_overridden(
    load: Callable[..., Sam], state: dict[str, Tensor]
) -> None:
    said = Metadata(architecture="edge-sam", upsample="bilinear")
    for metadata, override, expected in (
        (None, None, "bicubic"),
        (said, None, "bilinear"),
        (None, "bilinear", "bilinear"),
        (said, "bicubic", "bicubic"),
    ):
        model = load(state, metadata, upsample=override)
        assert model.provenance is not None and model.provenance.upsample == expected
        assert model.image_encoder.fuse_stage3.upsample == expected


def test_other_input_sizes_load(load: Callable[..., Sam], state: dict[str, Tensor]) -> None:
    model = load(state, image_size=512)
    assert model.image_size == 512 and model.prompt_encoder.get_dense_pe().shape == (1, 256, 32, 32)
    with pytest.raises(UsageError, match="500"):
        load(state, image_size=500)


def test_registered_weights_carry_what_the_registry_says(mobile_sam_path: Path) -> None:
    by_name, by_path = load_model("mobile-sam", offline=True), load_model(mobile_sam_path)
    known = entry("mobile-sam")
    for model, name in ((by_name, "mobile-sam"), (by_path, "mobile_sam.pt")):
        said = model.provenance
        assert said is not None
        assert (said.architecture, said.weights_name, said.weights_sha256) == ("mobile-sam", name, known.sha256)
        assert (said.licence, said.commercial_use, said.origin) == ("Apache-2.0", True, known.provenance)
        assert said.upsample is None and said.trained


@pytest.mark.parametrize("architecture", ["edge-sam", "mobile-sam"])
def test_a_standin_says_that_it_is_untrained(architecture: str, tmp_path: Path) -> None:
    path = write_standin(architecture, tmp_path / "standin.safetensors", seed=3)
    model = load_model(path)
    said = model.provenance
    assert said is not None and said.architecture == architecture
    assert not said.trained and said.weights_sha256 == sha256_of(path)
    expected, loaded = untrained_model(architecture, 3).state_dict(), model.state_dict()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)


def test_standins_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, again, other = (untrained_model("edge-sam", seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["image_encoder.neck.0.weight"], other["image_encoder.neck.0.weight"])


def test_standins_have_no_branch_that_folds_away(small_standin: Sam, cat_at_512: Tensor) -> None:
    """Each residual branch of RepViT contributes, and nothing blows up on the way."""
    branches = [block.channel_mixer.m for block in small_standin.image_encoder.features[1:]]
    deviations: list[float] = []
    hooks = [branch.register_forward_hook(lambda _m, _i, y: deviations.append(y.std().item())) for branch in branches]
    with torch.no_grad():
        small_standin.image_encoder(cat_at_512)
    for hook in hooks:
        hook.remove()
    assert len(deviations) == 26
    assert min(deviations) > 0.1 and max(deviations) < 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "message", "hint"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "nms does not exist", "same torch"),
        (
            "raise ModuleNotFoundError('no torchvision', name='torchvision')",
            "package torchvision",
            "edgesam-mobile[sam]",
        ),
    ],
)
def test_vit_without_usable_torchvision_says_what_is_missing(
    tmp_path: Path, broken: str, message: str, hint: str
) -> None:
    (tmp_path / "torchvision.py").write_text(broken)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from edgesam_mobile import EnvironmentMissing\n"
        "from edgesam_mobile.model.registry import build_model\n"
        "try:\n    build_model('sam-vit-b')\n"
        "except EnvironmentMissing as error:\n    print(error.message, error.hint, sep='|')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, _, advice = done.stdout.partition("|")
    assert message in said and hint in advice and "\n" not in said


@pytest.mark.slow
def test_sam_vit_b_predicts_what_segment_anything_predicts(
    segment_anything: Callable[[str, Path], None], cat: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    """The same random weights, through each one's own loader, resizing, encoder and decoder."""
    np.savez(tmp_path / "inputs.npz", picture=cat)
    segment_anything("vit_b", tmp_path)
    answers = np.load(tmp_path / "answers.npz")
    for part, tolerance in (("embedding", 2e-5), ("scores", 1e-4), ("low_res", 1e-3), ("logits", 1e-3)):
        theirs, ours = answers[f"theirs/{part}"], answers[f"ours/{part}"]
        assert theirs.std() > 0.01
        np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=0)
    assert np.mean((answers["ours/logits"] > 0) != (answers["theirs/logits"] > 0)) <= 1e-4


def test_what_weights_were_trained_with_comes_back(tmp_path: Path) -> None:
    path = write_standin("edge-sam-tiny", tmp_path / "tiny.safetensors", upsample="bilinear", image_size=256)
    model = load_model(path)
    assert model.provenance is not None
    assert (model.architecture, model.image_size) == ("edge-sam-tiny", 256)
    assert (model.provenance.upsample, model.provenance.image_size) == ("bilinear", 256)
    other = load_model(path, upsample="bicubic", image_size=512)
    assert other.image_size == 512 and other.provenance is not None
    assert (other.provenance.upsample, other.provenance.image_size) == ("bicubic", 256)


def test_a_variant_is_known_by_its_widths(tmp_path: Path) -> None:
    plain = tmp_path / "tiny.pth"
    torch.save(build_model("edge-sam-tiny").state_dict(), plain)
    assert load_model(plain).architecture == "edge-sam-tiny"


@pytest.mark.parametrize("said", ["wide", "0", "-512", "99999"])
def test_a_senseless_input_size_in_the_metadata_is_refused(said: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    header = {"edgesam.format": "1", "edgesam.architecture": "edge-sam-tiny", "edgesam.image_size": said}
    save_file({"image_encoder.x": torch.zeros(1)}, path, metadata=header)
    with pytest.raises(WeightsError, match=re.escape(repr(said))):
        load_model(path)
