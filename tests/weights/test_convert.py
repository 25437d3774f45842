from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgesam_mobile.errors import UsageError, WeightsError
from edgesam_mobile.files import sha256_of
from edgesam_mobile.weights.checkpoint import Metadata, read_checkpoint, write_checkpoint
from edgesam_mobile.weights.convert import convert

SHAPES: dict[str, tuple[int, ...]] = {
    "image_encoder.features.0.0.c.weight": (4, 3, 3, 3),
    "image_encoder.features.0.0.bn.num_batches_tracked": (),
    "image_encoder.fuse_stage2.weight": (4, 4, 1, 1),
    "prompt_encoder.not_a_point_embed.weight": (1, 4),
    "mask_decoder.iou_token.weight": (1, 4),
    "mask_decoder.mask_tokens.weight": (4, 4),
}
KNOWN = Metadata(
    architecture="edge-sam",
    upsample="bilinear",
    licence="Apache-2.0",
    commercial_use=True,
    provenance="trained here",
    image_size=512,
)


def layout(architecture: str) -> Mapping[str, tuple[int, ...]]:
    assert architecture == "edge-sam"
    return SHAPES


@pytest.fixture
def state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.tensor(5) if key.endswith("tracked") else torch.randn(shape, generator=generator)
        for key, shape in SHAPES.items()
    }


@pytest.fixture
def whole(tmp_path: Path, state: dict[str, Tensor]) -> Path:
    return write_checkpoint(tmp_path / "whole.safetensors", state, KNOWN)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_pickle_becomes_safetensors_bit_for_bit(tmp_path: Path, state: dict[str, Tensor], wrapped: bool) -> None:
    torch.save({"model": state} if wrapped else state, tmp_path / "in.pth")
    written = convert(tmp_path / "in.pth", tmp_path / "out.safetensors", layout=layout)
    read = read_checkpoint(tmp_path / "out.safetensors")
    assert_same(read.state, state)
    expected = Metadata(architecture="edge-sam", parts=("encoder", "prompt", "decoder"))
    assert written.metadata == read.metadata == expected
    assert written.sha256 == sha256_of(tmp_path / "out.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_parts_split_off_and_joined_are_the_whole_again(
    tmp_path: Path, whole: Path, state: dict[str, Tensor], suffix: str
) -> None:
    parts = []
    for part in ("encoder", "prompt", "decoder"):
        parts.append(tmp_path / f"{part}{suffix}")
        convert(whole, parts[-1], layout=layout, part=part)
        assert read_checkpoint(parts[-1]).metadata.parts == (part,)
    written = convert(
        parts[2], tmp_path / "joined.safetensors", layout=layout, join=parts[:2], architecture="edge-sam"
    )
    assert_same(written.state, state)
    if suffix == ".safetensors":
        assert sha256_of(tmp_path / "joined.safetensors") == sha256_of(whole)


def test_several_parts_can_be_kept_at_once(tmp_path: Path, whole: Path, state: dict[str, Tensor]) -> None:
    written = convert(whole, tmp_path / "out.safetensors", layout=layout, part="prompt+decoder")
    assert written.metadata == replace(KNOWN, parts=("prompt", "decoder"))
    assert_same(written.state, {key: state[key] for key in state if not key.startswith("image_encoder.")})


def test_bare_encoder_keys_get_their_prefix(tmp_path: Path, state: dict[str, Tensor]) -> None:
    encoder = {key: tensor for key, tensor in state.items() if key.startswith("image_encoder.")}
    torch.save({"model": {k.removeprefix("image_encoder."): t for k, t in encoder.items()}}, tmp_path / "in.pth")
    written = convert(tmp_path / "in.pth", tmp_path / "out.safetensors", layout=layout)
    assert_same(written.state, encoder)
    assert written.metadata.parts == ("encoder",)
    assert written.metadata.architecture == "edge-sam"


def test_files_that_share_equal_tensors_join(tmp_path: Path, whole: Path, state: dict[str, Tensor]) -> None:
    convert(whole, tmp_path / "encoder.safetensors", layout=layout, part="encoder")
    written = convert(tmp_path / "encoder.safetensors", tmp_path / "out.safetensors", layout=layout, join=[whole])
    assert_same(written.state, state)


def test_files_that_differ_in_a_shared_tensor_do_not_join(
    tmp_path: Path, whole: Path, state: dict[str, Tensor]
) -> None:
    state["mask_decoder.iou_token.weight"] = state["mask_decoder.iou_token.weight"] + 1
    other = write_checkpoint(tmp_path / "other.safetensors", state, KNOWN)
    with pytest.raises(WeightsError, match=r"differ in mask_decoder\.iou_token\.weight"):
        convert(whole, tmp_path / "out.safetensors", layout=layout, join=[other])
    assert not (tmp_path / "out.safetensors").exists()


def test_a_joined_file_carries_every_licence_and_its_encoder_s_kind(tmp_path: Path, state: dict[str, Tensor]) -> None:
    encoder = {key: tensor for key, tensor in state.items() if key.startswith("image_encoder.")}
    rest = {key: tensor for key, tensor in state.items() if key not in encoder}
    restricted = Metadata("other", None, "S-Lab License 1.0", False, "elsewhere", trained=False)
    write_checkpoint(tmp_path / "rest.safetensors", rest, restricted)
    write_checkpoint(tmp_path / "encoder.safetensors", encoder, KNOWN)
    written = convert(
        tmp_path / "rest.safetensors",
        tmp_path / "out.safetensors",
        layout=layout,
        join=[tmp_path / "encoder.safetensors"],
    )
    assert written.metadata == Metadata(
        architecture="edge-sam",
        upsample="bilinear",
        licence="S-Lab License 1.0 AND Apache-2.0",
        commercial_use=False,
        provenance="elsewhere; trained here",
        trained=False,
        image_size=512,
        parts=("encoder", "prompt", "decoder"),
    )


def test_a_licence_that_is_not_known_makes_commercial_use_unknown(
    tmp_path: Path, whole: Path, state: dict[str, Tensor]
) -> None:
    torch.save(state, tmp_path / "bare.pth")
    written = convert(whole, tmp_path / "out.safetensors", layout=layout, join=[tmp_path / "bare.pth"])
    assert written.metadata.licence == "Apache-2.0 AND unknown"
    assert written.metadata.commercial_use is None


def test_missing_unexpected_and_misshapen_tensors_are_named_and_counted(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    state["image_encoder.fuse_stage2.weight"] = torch.zeros(4, 5, 1, 1)
    del state["mask_decoder.iou_token.weight"]
    state |= {f"mask_decoder.extra.{index}": torch.zeros(1) for index in range(5)}
    torch.save(state, tmp_path / "in.pth")
    with pytest.raises(WeightsError) as caught:
        convert(tmp_path / "in.pth", tmp_path / "out.safetensors", layout=layout)
    assert caught.value.message == (
        "not a checkpoint of edge-sam: missing mask_decoder.iou_token.weight; "
        "unexpected mask_decoder.extra.0, mask_decoder.extra.1, mask_decoder.extra.2 and 2 more; "
        "of the wrong shape image_encoder.fuse_stage2.weight is (4, 5, 1, 1), not (4, 4, 1, 1)"
    )
    assert not (tmp_path / "out.safetensors").exists()


def test_keys_outside_every_part_are_unexpected_unless_a_part_is_picked(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    torch.save({**state, "rpn_head.weight": torch.zeros(1)}, tmp_path / "in.pth")
    with pytest.raises(WeightsError, match=r"unexpected rpn_head\.weight"):
        convert(tmp_path / "in.pth", tmp_path / "out.safetensors", layout=layout)
    written = convert(tmp_path / "in.pth", tmp_path / "out.safetensors", layout=layout, part="encoder+prompt+decoder")
    assert_same(written.state, state)


def test_a_part_that_is_not_there_is_an_error(tmp_path: Path, whole: Path) -> None:
    convert(whole, tmp_path / "decoder.safetensors", layout=layout, part="decoder")
    with pytest.raises(WeightsError, match="holds no encoder and no prompt"):
        convert(
            tmp_path / "decoder.safetensors",
            tmp_path / "out.safetensors",
            layout=layout,
            part="encoder+prompt",
        )


def test_a_bare_decoder_needs_its_architecture_named(tmp_path: Path, whole: Path) -> None:
    convert(whole, tmp_path / "decoder.pth", layout=layout, part="decoder")
    with pytest.raises(UsageError, match="do not tell their architecture"):
        convert(tmp_path / "decoder.pth", tmp_path / "out.safetensors", layout=layout)
    convert(tmp_path / "decoder.pth", tmp_path / "out.safetensors", layout=layout, architecture="edge-sam")


@pytest.mark.parametrize("part", ["neck", "encoder+", "", "encoder,decoder"])
def test_an_unknown_part_is_an_error(tmp_path: Path, whole: Path, part: str) -> None:
    with pytest.raises(UsageError, match="no part is called"):
        convert(whole, tmp_path / "out.safetensors", layout=layout, part=part)


def test_a_file_can_be_converted_onto_itself(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": state}, path)
    convert(path, path, layout=layout, part="encoder")
    assert read_checkpoint(path).metadata.parts == ("encoder",)


def assert_same(read: Mapping[str, Tensor], written: Mapping[str, Tensor]) -> None:
    assert read.keys() == written.keys()
    for key, tensor in written.items():
        assert read[key].dtype == tensor.dtype
        assert torch.equal(read[key], tensor)


def test_halved_weights_are_rounded_and_counters_kept(tmp_path: Path, whole: Path, state: dict[str, Tensor]) -> None:
    written = convert(whole, tmp_path / "half.safetensors", layout=layout, half=True)
    read = read_checkpoint(tmp_path / "half.safetensors")
    assert read.metadata == written.metadata and read.metadata.image_size == KNOWN.image_size
    assert_same(read.state, {key: t.half() if t.is_floating_point() else t for key, t in state.items()})


def test_numbers_that_half_precision_cannot_hold_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["mask_decoder.iou_token.weight"][0, 0] = 1e5
    large = write_checkpoint(tmp_path / "large.safetensors", state, KNOWN)
    with pytest.raises(WeightsError, match="iou_token"):
        convert(large, tmp_path / "half.safetensors", layout=layout, half=True)
    assert not (tmp_path / "half.safetensors").exists()
