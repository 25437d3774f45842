from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from edgesam_mobile.cli.weights import app
from edgesam_mobile.weights.checkpoint import Metadata, read_checkpoint, write_checkpoint
from edgesam_mobile.weights.registry import REGISTRY


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_list_gives_every_name_bare_or_with_all_that_is_known(cache: Path) -> None:
    assert run("list", "--quiet").stdout.split() == list(REGISTRY)
    listed = json.loads(run("list", "--json").stdout)
    assert listed["schema"] == "edgesam.weights.list/1"
    rows = {row["name"]: row for row in listed["weights"]}
    assert rows["edge-sam-3x"]["commercial_use"] is False
    assert rows["mobile-sam"]["cached"] is False
    assert not cache.exists()
    assert "S-Lab License 1.0" in run("list").stdout


def test_info_describes_a_checkpoint(tmp_path: Path) -> None:
    metadata = Metadata(architecture="edge-sam", licence="Apache-2.0", commercial_use=True, trained=False)
    state = {"mask_decoder.a": torch.ones(2, 3), "mask_decoder.b": torch.tensor(1)}
    path = write_checkpoint(tmp_path / "a.safetensors", state, metadata)
    told = run("info", path, "--json")
    data = json.loads(told.stdout)
    assert data["schema"] == "edgesam.weights.info/1"
    assert (data["architecture"], data["parts"], data["trained"]) == ("edge-sam", ["decoder"], False)
    assert (data["tensors"], data["elements"], data["precisions"]) == (2, 7, {"float32": 1, "int64": 1})
    assert "UNTRAINED" in told.stderr
    assert "1 float32, 1 int64" in run("info", path).stdout


def test_info_takes_a_bare_word_for_a_name_and_anything_else_for_a_file(cache: Path) -> None:
    assert "EdgeSAM" in run("info", "edge-sam").stdout
    misspelt = run("info", "edge-sma")
    assert (misspelt.exit_code, "did you mean edge-sam?" in misspelt.stderr) == (2, True)
    missing = run("info", "missing.pth")
    assert (missing.exit_code, "cannot read missing.pth" in missing.stderr) == (9, True)
    assert not cache.exists()


def test_fetch_offline_fails_with_its_own_exit_code_and_no_socket(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "socket")
    told = run("fetch", "edge-sam", "--offline", "--json")
    assert told.exit_code == 10
    assert told.stdout == ""
    assert "S-Lab License 1.0 forbids commercial use" in told.stderr
    error = json.loads(told.stderr.splitlines()[-1])["error"]
    assert error["kind"] == "fetch"
    assert str(cache / "edge_sam.pth") in error["message"]


def test_fetch_prints_only_paths_when_quiet(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "edge_sam.pth").write_bytes(b"by hand")
    (cache / "edge_sam_3x.pth").write_bytes(b"by hand")
    told = run("fetch", "edge-sam", "edge-sam-3x", "--quiet")
    assert told.stdout.split() == [str(cache / "edge_sam.pth"), str(cache / "edge_sam_3x.pth")]


def test_fetch_checks_every_name_before_it_fetches_any(cache: Path) -> None:
    assert run("fetch", "mobile-sam", "no-such-sam").exit_code == 2
    assert not cache.exists()


@pytest.mark.slow
def test_a_stand_in_is_split_and_joined_into_the_same_file(tmp_path: Path) -> None:
    whole, encoder, rest = (tmp_path / f"{name}.safetensors" for name in ("whole", "encoder", "rest"))
    made = run("standin", "edge-sam", "-o", whole, "--json")
    assert made.exit_code == 0, made.stderr
    assert "UNTRAINED" in made.stderr
    assert json.loads(made.stdout)["trained"] is False
    assert run("convert", whole, "-o", encoder, "--part", "encoder", "-q").stdout.strip() == str(encoder)
    assert run("convert", whole, "-o", rest, "--part", "prompt+decoder").exit_code == 0
    joined = run("convert", encoder, "--join", rest, "-o", tmp_path / "joined.safetensors", "--json")
    assert json.loads(joined.stdout)["parts"] == ["encoder", "prompt", "decoder"]
    assert (tmp_path / "joined.safetensors").read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_converting_to_a_pickle_says_what_is_lost(tmp_path: Path) -> None:
    run("standin", "edge-sam", "-o", tmp_path / "whole.safetensors")
    told = run("convert", tmp_path / "whole.safetensors", "-o", tmp_path / "whole.pth")
    assert "licence and origin are lost" in told.stderr
    assert read_checkpoint(tmp_path / "whole.pth").metadata.architecture == "edge-sam"
