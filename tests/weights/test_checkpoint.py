from __future__ import annotations

import os
import pickle
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgesam_mobile.errors import StorageError, UsageError, WeightsError
from edgesam_mobile.files import sha256_of
from edgesam_mobile.weights.checkpoint import Metadata, detect_architecture, read_checkpoint, write_checkpoint

KNOWN = Metadata(
    architecture="edge-sam",
    upsample="bilinear",
    licence="Apache-2.0",
    commercial_use=True,
    provenance="these tests",
    trained=False,
    parts=("encoder", "decoder"),
)


@pytest.fixture
def state() -> dict[str, Tensor]:
    """Tensors of several precisions, one of them not contiguous and two of them sharing memory."""
    shared = torch.arange(6.0).reshape(2, 3)
    return {
        "image_encoder.neck.0.weight": torch.randn(4, 3, 1, 1).half(),
        "image_encoder.features.0.0.bn.num_batches_tracked": torch.tensor(7),
        "mask_decoder.iou_token.weight": shared,
        "mask_decoder.mask_tokens.weight": shared.t(),
        "mask_decoder.scale": torch.tensor([1.5], dtype=torch.bfloat16),
        "mask_decoder.nothing": torch.empty(0),
    }


def test_safetensors_keep_tensors_and_metadata(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = write_checkpoint(tmp_path / "model.safetensors", state, KNOWN)
    read = read_checkpoint(path)
    assert read.metadata == KNOWN
    assert read.sha256 == sha256_of(path)
    assert_same(read.state, state)


@pytest.mark.parametrize("metadata", [Metadata(), Metadata(commercial_use=False, trained=True)])
def test_what_metadata_leaves_open_stays_open(tmp_path: Path, state: dict[str, Tensor], metadata: Metadata) -> None:
    path = write_checkpoint(tmp_path / "model.safetensors", state, metadata)
    assert read_checkpoint(path).metadata == replace(metadata, parts=("encoder", "decoder"))


def test_safetensors_are_the_same_bytes_each_time(tmp_path: Path, state: dict[str, Tensor]) -> None:
    said = replace(KNOWN, provenance='"quoted", \\ and ünïcode\n')
    first = write_checkpoint(tmp_path / "a.safetensors", state, said).read_bytes()
    for _ in range(5):
        assert write_checkpoint(tmp_path / "b.safetensors", state, said).read_bytes() == first
    assert read_checkpoint(tmp_path / "b.safetensors").metadata == said


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_pickles_keep_tensors_and_are_the_same_bytes_each_time(
    tmp_path: Path, state: dict[str, Tensor], suffix: str
) -> None:
    first = write_checkpoint(tmp_path / f"a{suffix}", state, KNOWN)
    second = write_checkpoint(tmp_path / f"b{suffix}", state, KNOWN)
    assert first.read_bytes() == second.read_bytes()
    assert_same(read_checkpoint(first).state, state)
    assert_same(torch.load(first, weights_only=True), state)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_training_checkpoint_is_unwrapped(tmp_path: Path, new_format: bool) -> None:
    path = tmp_path / "training.pth"
    state = {"image_encoder.fuse_stage2.weight": torch.ones(2, 2, 1, 1)}
    torch.save({"model": state, "epoch": 3}, path, _use_new_zipfile_serialization=new_format)
    read = read_checkpoint(path)
    assert_same(read.state, state)
    assert read.metadata == Metadata(architecture="edge-sam", parts=("encoder",))


def test_a_published_file_is_known_by_its_name_where_no_hash_is_pinned(tmp_path: Path) -> None:
    state = {"image_encoder.fuse_stage2.weight": torch.ones(2, 2, 1, 1)}
    torch.save(state, tmp_path / "edge_sam_3x.pth")
    metadata = read_checkpoint(tmp_path / "edge_sam_3x.pth").metadata
    assert (metadata.licence, metadata.commercial_use) == ("S-Lab License 1.0", False)
    assert metadata.upsample == "bicubic"


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
@pytest.mark.parametrize("kept", [0, 3, 40, -1, -30])
def test_a_truncated_file_is_refused_in_one_line(
    tmp_path: Path, state: dict[str, Tensor], name: str, kept: int
) -> None:
    path = write_checkpoint(tmp_path / name, state, KNOWN)
    path.write_bytes(path.read_bytes()[:kept])
    assert_refused(path)


def test_a_pickle_with_its_middle_missing_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = write_checkpoint(tmp_path / "model.pt", state, KNOWN)
    content = path.read_bytes()
    path.write_bytes(content[:200] + content[-200:])
    assert_refused(path)


@pytest.mark.parametrize("content", [b"hello" * 100, b"<html>", b"\x80\x02."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_other_bytes_are_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"file{suffix}").write_bytes(content)
    assert_refused(tmp_path / f"file{suffix}")


@pytest.mark.parametrize("name", ["missing.pt", "missing.safetensors", "."])
def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    assert_refused(tmp_path / name)


class Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_a_command_is_refused_without_running_it(tmp_path: Path, zipped: bool) -> None:
    path, proof = tmp_path / "evil.pt", tmp_path / "proof"
    if zipped:
        torch.save({"model": Evil(f"touch {proof}")}, path)
    else:
        path.write_bytes(pickle.dumps({"model": Evil(f"touch {proof}")}))
    assert_refused(path)
    assert not proof.exists()


def test_the_code_that_a_pickle_needs_is_named(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(1)}, "args": Namespace(x=1)}, tmp_path / "training.pth")
    with pytest.raises(WeightsError, match=r"needs code to be read \(argparse.Namespace\)"):
        read_checkpoint(tmp_path / "training.pth")


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, {3: torch.ones(1)}, torch.ones(2), {"model": {"a": "b"}}])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_checkpoint(tmp_path / "file.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_first_tensor_with_a_number_that_is_none_is_named(
    tmp_path: Path, value: float, dtype: torch.dtype
) -> None:
    bad = torch.tensor([1.0, value]).to(dtype)
    path = write_checkpoint(tmp_path / "a.safetensors", {"a": torch.ones(1), "b": bad, "c": bad}, Metadata())
    with pytest.raises(WeightsError, match="b holds NaN or infinity"):
        read_checkpoint(path)


def test_metadata_of_a_later_version_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata={"edgesam.format": "2"})
    with pytest.raises(WeightsError, match="version 2, this version reads 1"):
        read_checkpoint(tmp_path / "a.safetensors")


def test_safetensors_of_other_tools_are_known_by_their_keys(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"image_encoder.pos_embed": torch.zeros(1, 2, 2, 1024)}, tmp_path / "a.safetensors")
    assert read_checkpoint(tmp_path / "a.safetensors").metadata.architecture == "sam-vit-l"


@pytest.mark.parametrize(
    ("key", "shape", "architecture"),
    [
        ("image_encoder.fuse_stage2.weight", (256, 192, 1, 1), "edge-sam"),
        ("image_encoder.patch_embed.seq.0.c.weight", (32, 3, 3, 3), "mobile-sam"),
        ("image_encoder.pos_embed", (1, 64, 64, 768), "sam-vit-b"),
        ("image_encoder.pos_embed", (1, 64, 64, 1280), "sam-vit-h"),
        ("image_encoder.pos_embed", (1, 64, 64, 5), None),
        ("image_encoder.pos_embed", (), None),
        ("mask_decoder.iou_token.weight", (1, 256), None),
    ],
)
def test_the_architecture_shows_in_keys_and_shapes(
    key: str, shape: tuple[int, ...], architecture: str | None
) -> None:
    assert detect_architecture({key: torch.zeros(shape)}) == architecture


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_a_full_disk_is_a_storage_error_and_leaves_the_old_file(small_disk: Path, name: str) -> None:
    old = write_checkpoint(small_disk / name, {"a": torch.ones(1)}, Metadata())
    before = old.read_bytes()
    with pytest.raises(StorageError, match="no space left"):
        write_checkpoint(small_disk / name, {"a": torch.ones(200_000)}, Metadata())
    assert old.read_bytes() == before
    assert [path.name for path in small_disk.iterdir()] == [name]


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write weights as model\.onnx"):
        write_checkpoint(tmp_path / "model.onnx", {"a": torch.ones(1)}, Metadata())
    assert not list(tmp_path.iterdir())


def assert_refused(path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def assert_same(read: dict[str, Tensor], written: dict[str, Tensor]) -> None:
    assert read.keys() == written.keys()
    for key, tensor in written.items():
        assert read[key].dtype == tensor.dtype
        assert torch.equal(read[key], tensor)
