"""What all tests share: a cache of their own, real and stand-in models, pictures, and segment-anything as oracle."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

# Threads that wait for each other spin; on a shared machine that makes everything several times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import pytest
import torch
from bare_manifest import bare_manifest
from filelock import FileLock
from hypothesis import configuration, settings
from torch import Tensor

from edgesam_mobile.deploy.build import build
from edgesam_mobile.deploy.options import BuildOptions
from edgesam_mobile.errors import FetchError
from edgesam_mobile.files import sha256_of
from edgesam_mobile.model.geometry import ResizeLongestSide
from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.predictor import SamPredictor
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.model.standin import untrained_model, write_standin
from edgesam_mobile.package.manifest import write_manifest
from edgesam_mobile.picture import read_picture
from edgesam_mobile.weights.fetch import cached, cached_path, fetch
from edgesam_mobile.weights.registry import entry

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("edgesam", database=None, deadline=None)
settings.load_profile("edgesam")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: begun last, they would run on while the other process has nothing left to do."""
    items.sort(key=lambda item: item.path.name not in ("test_readme.py", "test_bench_host.py"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """Point cache and store at folders of this session; gives the mobile-sam that the user's cache has."""
    configuration.set_hypothesis_home_dir(tmp_path_factory.mktemp("hypothesis"))
    already = cached("mobile-sam")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESAM_CACHE", str(shared_folder(tmp_path_factory) / "cache"))
        patch.setenv("EDGESAM_STORE", str(tmp_path_factory.mktemp("store") / "measurements.sqlite"))
        yield already


@pytest.fixture(scope="session")
def mobile_sam_path(own_cache: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MobileSAM's published weights, in this session's cache: linked from the user's cache, or fetched."""
    with one_at_a_time(tmp_path_factory):
        link = cached_path(entry("mobile-sam"))
        if own_cache is not None and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(own_cache.absolute())
        try:
            return fetch("mobile-sam")
        except FetchError as error:
            unavailable(f"no real weights: {error.message}")


@pytest.fixture(scope="session")
def mobile_sam(mobile_sam_path: Path) -> Sam:
    """The real MobileSAM; no test changes it."""
    return load_model(mobile_sam_path)


@pytest.fixture(scope="session")
def edge_sam_standin() -> Sam:
    """EdgeSAM with untrained weights at 1024 pixels; no test changes it."""
    return untrained_model("edge-sam")


@pytest.fixture(scope="session")
def small_standin() -> Sam:
    """EdgeSAM with untrained weights at 512 pixels, a quarter of the work; no test changes it."""
    return untrained_model("edge-sam", image_size=512)


@pytest.fixture(scope="session")
def cat() -> npt.NDArray[np.uint8]:
    picture = read_picture(ROOT / "examples" / "cat.jpg")
    picture.flags.writeable = False
    return picture


@pytest.fixture(scope="session")
def cat_predictor(mobile_sam: Sam, cat: npt.NDArray[np.uint8]) -> SamPredictor:
    """The real MobileSAM, with the cat embedded; no test sets another picture."""
    predictor = SamPredictor(mobile_sam)
    predictor.set_image(cat)
    return predictor


@pytest.fixture(scope="session")
def constant_model() -> Callable[..., Sam]:
    """Builds 512-pixel models whose four masks and IoU predictions are given constants for any prompt."""

    def build(architecture: str, logits: Sequence[float], scores: Sequence[float] = (0.5, 0.5, 0.5, 0.5)) -> Sam:
        model = untrained_model(architecture, image_size=512)
        decoder = model.mask_decoder
        set_constant(decoder.output_upscaling[3], 1.0)
        pixel = torch.nn.functional.gelu(torch.ones(32)).sum().item()
        for mlp, logit in zip(decoder.output_hypernetworks_mlps, logits, strict=True):
            set_constant(mlp.layers[-1], logit / pixel)
        set_constant(decoder.iou_prediction_head.layers[-1], scores)
        return model

    return build


@pytest.fixture(scope="session")
def cat_at_512(cat: npt.NDArray[np.uint8], small_standin: Sam) -> Tensor:
    """The cat as encoders get it, 1 x 3 x 512 x 512: normalised and padded."""
    resized = torch.from_numpy(ResizeLongestSide(512).apply_image(cat))
    return small_standin.preprocess(resized.permute(2, 0, 1)[None].float())


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Photographs that are too large for the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no photographs at {folder}")
    return folder


@pytest.fixture(scope="session")
def segment_anything() -> Callable[[str, Path], None]:
    """Runs one job of ``segment_anything_oracle.py``, which reads and writes files in the folder given."""
    if missing := [name for name in ("segment_anything", "torchvision") if importlib.util.find_spec(name) is None]:
        unavailable(f"no oracle: {' and '.join(missing)} not installed")

    def run(job: str, folder: Path) -> None:
        command = [
            sys.executable,
            "-W",
            "error",
            str(ROOT / "tests" / "segment_anything_oracle.py"),
            job,
            str(folder),
        ]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture(scope="session")
def standin_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained EdgeSAM."""
    return write_standin("edge-sam", tmp_path_factory.mktemp("weights") / "edge-sam-standin.safetensors")


@pytest.fixture(scope="session")
def bare_package(tmp_path_factory: pytest.TempPathFactory, standin_file: Path) -> Path:
    """An untrained EdgeSAM at 512 pixels and a Core ML artefact that cannot be run: made in no time."""
    folder = tmp_path_factory.mktemp("bare-package")
    write_manifest(folder, bare_manifest(sha256_of(standin_file)))
    return folder


@pytest.fixture(scope="session")
def mobile_sam_package(mobile_sam_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every artefact of the real MobileSAM. It takes minutes; who alters it works on a copy (package_copies)."""
    assert mobile_sam_path.is_file()
    package = tmp_path_factory.mktemp("packages") / "mobile-sam"
    with one_at_a_time(tmp_path_factory):
        build(BuildOptions("mobile-sam"), package)
    return package


@pytest.fixture(scope="session")
def edge_sam_package(standin_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every artefact of the untrained EdgeSAM. It takes minutes; who alters it works on a copy (package_copies)."""
    package = tmp_path_factory.mktemp("packages") / "edge-sam"
    with one_at_a_time(tmp_path_factory):
        build(BuildOptions(str(standin_file)), package)
    return package


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, where this user may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount a small file system to fill up")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all processes of one test run have in common."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextmanager
def one_at_a_time(factory: pytest.TempPathFactory) -> Iterator[None]:
    """Among the processes of one test run: what the first one builds, the next takes from the cache."""
    with FileLock(shared_folder(factory) / "one-at-a-time.lock"):
        yield


def set_constant(layer: torch.nn.Module, value: float | Sequence[float]) -> None:
    """Make a layer answer ``value`` to any input."""
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.as_tensor(value))


def unavailable(reason: str) -> NoReturn:
    """Skip on a developer's machine; fail in CI, where skipping would hide that nothing was tested."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
