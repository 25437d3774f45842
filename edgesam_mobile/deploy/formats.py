"""The formats a model can be built into, as data: what each wants of the graphs and what can execute it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from edgesam_mobile.deploy.precision import RECOMMENDED, Plan

# Groups of layers whose integer arithmetic moves the embedding most: found on TFLite encoders of edge-sam-open and
# mobile-sam by leaving out one group at a time, then the worst together. Other weights may have others.
_EDGE_SAM = ("encoder.features.16", "encoder.features.17", "encoder.features.22", "encoder.neck.2")
_MOBILE_SAM = (
    "encoder.layers.0.blocks.0",
    "encoder.layers.0.blocks.1",
    "encoder.layers.0.downsample.conv2",
    "encoder.layers.2.downsample.conv1",
    "encoder.layers.2.downsample.conv2",
    "encoder.neck.2",
)
# Where layers that are left out are stored in 8 bits all the same, more of them cost no more bytes.
_MORE_OF_MOBILE_SAM = (
    *_MOBILE_SAM,
    "encoder.patch_embed",
    "encoder.layers.0.downsample",
    "encoder.layers.1.downsample",
)


_ENCODER = "encoder."  # how its groups begin, and no decoder's


@dataclass(frozen=True)
class Format:
    """One file format with its exporter.

    Attributes:
        exporter: module of this room with ``export`` (see :class:`edgesam_mobile.deploy.report.Exporter`).
        targets: what the format is built for.
        precisions: those built where none is asked for.
        compressed: further ones that it offers, see :mod:`edgesam_mobile.deploy.precision`.
        half: precisions that compute in half precision, whatever they store.
        recommended: what its encoder and its decoder are to be compressed to, by graph.
        sensitive: groups of layers that the recommended graphs leave in floating point, by architecture.
        leaves_out: those of ``compressed`` that can leave layers out; the others take all or nothing.
        instead: precisions that layers left out by a plan can take, rather than floating point.
        channels_last: N x H x W x C pictures and embeddings instead of N x C x H x W.
        folded: the decoder's form of attention (see :mod:`edgesam_mobile.deploy.attention`) where weights are not
            compressed: folding makes products of them, which are no weights any more.
        newer_os: what some precisions need beyond ``minimum_os``.
        packages: distributions whose versions decide what the exporter writes.
    """

    name: str
    exporter: str
    suffix: str
    targets: tuple[str, ...]
    precisions: tuple[str, ...]
    packages: tuple[str, ...]
    extra: str
    compressed: tuple[str, ...] = ()
    half: tuple[str, ...] = ()
    recommended: Mapping[str, Plan] = field(default_factory=dict)
    sensitive: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    leaves_out: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    channels_last: bool = False
    folded: bool = False
    minimum_os: str | None = None
    newer_os: Mapping[str, str] = field(default_factory=dict)

    def least_os(self, precisions: Iterable[str]) -> str | None:
        """The oldest system that runs graphs of these precisions."""
        return max((self.newer_os[p] for p in precisions if p in self.newer_os), default=self.minimum_os)

    def recommendation(self, part: str, architecture: str | None) -> Plan:
        """The recommended plan of a graph; of an architecture whose sensitive groups are known, without those.

        The proposals graph has the same encoder's modules as its own.
        """
        groups = [
            group.removeprefix(_ENCODER) if part == "proposals" else group
            for group in self.sensitive.get(architecture or "", ())
            if group.startswith(_ENCODER) != (part == "decoder")
        ]
        return replace(self.recommended[part], left_out=tuple(groups))

    def offers(self, precision: str) -> bool:
        """Whether an artefact can be asked for in this precision; ``recommended`` where the format has one."""
        if precision == RECOMMENDED:
            return bool(self.recommended)
        return precision in (*self.precisions, *self.compressed)


_SMALL_WEIGHTS = {
    part: Plan("int8-weights", reason="computed in half precision, as the Neural Engine does")
    for part in ("encoder", "decoder", "proposals")
}
_COREML_COMPRESSED = (
    "int8-weights", "palette8", "palette6", "palette6-grouped", "palette6-fitted", "palette4", "palette4-grouped",
    "palette4-fitted", "int8",
)  # fmt: skip
_COREML = Format(
    name="coreml",
    exporter="coreml",
    suffix=".mlpackage",
    targets=("ios",),
    precisions=("fp16", "fp32"),
    packages=("coremltools",),
    extra="coreml",
    compressed=_COREML_COMPRESSED,
    half=("fp16", *_COREML_COMPRESSED),
    recommended=_SMALL_WEIGHTS,
    leaves_out=_COREML_COMPRESSED,
    instead=("int8-weights", "palette8", "palette6"),
    minimum_os="iOS 16",
    newer_os={
        "int8": "iOS 17",
        **dict.fromkeys(("palette6-grouped", "palette4-grouped", "palette4-fitted"), "iOS 18"),
    },
)
_EXECUTORCH_COREML = Format(
    name="executorch-coreml",
    exporter="executorch_coreml",
    suffix=".pte",
    targets=("ios",),
    precisions=("fp16",),
    packages=("executorch", "coremltools", "torchao"),
    extra="executorch",
    compressed=("int8-weights", "int8"),
    half=("fp16", "int8-weights", "int8"),
    recommended=_SMALL_WEIGHTS,
    leaves_out=("int8",),
    minimum_os="iOS 16",
    newer_os={"int8": "iOS 17"},
)
_TFLITE = Format(
    name="tflite",
    exporter="tflite",
    suffix=".tflite",
    targets=("android",),
    precisions=("fp32", "fp16"),
    packages=("litert-torch", "ai-edge-quantizer"),
    extra="tflite",
    compressed=("int8", "int16x8", "int8-dynamic", "int8-weights"),
    recommended={
        "encoder": Plan("int8"),
        "proposals": Plan("int8"),
        "decoder": Plan(
            "int8-weights", reason="what its integers cost depends on the prompts that it is calibrated with"
        ),
    },
    sensitive={"edge-sam": _EDGE_SAM, "mobile-sam": _MORE_OF_MOBILE_SAM},
    leaves_out=("int8", "int16x8", "int8-dynamic"),
    channels_last=True,
    minimum_os="Android 8 (API 26)",
)
_EXECUTORCH_XNNPACK = Format(
    name="executorch-xnnpack",
    exporter="executorch_xnnpack",
    suffix=".pte",
    targets=("android",),
    precisions=("fp32",),
    packages=("executorch", "torchao"),
    extra="executorch",
    compressed=("fp16", "int8", "int8-dynamic"),
    half=("fp16",),
    recommended={
        "encoder": Plan("int8"),
        "proposals": Plan("int8"),
        "decoder": Plan(
            "int8-dynamic", reason="what measured ranges cost depends on the prompts that it is calibrated with"
        ),
    },
    sensitive={"mobile-sam": _MOBILE_SAM},  # floating point takes four times the bytes here
    leaves_out=("int8", "int8-dynamic"),
    folded=True,
    minimum_os="Android 8 (API 26)",
)
_ONNX = Format(
    name="onnx",
    exporter="onnx",
    suffix=".onnx",
    targets=("host",),
    precisions=("fp32",),
    packages=("onnx", "onnxscript", "onnxruntime"),
    extra="onnx",
    compressed=("fp16", "int8", "int8-weights"),
    half=("fp16",),
    recommended={
        "encoder": Plan("int8"),
        "proposals": Plan("int8"),
        "decoder": Plan("int8", reason="small weights alone, restored at each call, are slower than large ones"),
    },
    sensitive={
        # The last steps before the masks: in integers, 0.3 points of mobile-sam's boxes, and a tenth more time.
        "edge-sam": ("hyper",),
        # Ranges are averages of plain extremes here, which more of an encoder's layers suffer from.
        "mobile-sam": (*_MORE_OF_MOBILE_SAM, "encoder.layers.1", "encoder.layers.3", "encoder.neck", "hyper"),
    },
    leaves_out=("int8",),
    folded=True,
)

FORMATS = {f.name: f for f in (_COREML, _EXECUTORCH_COREML, _TFLITE, _EXECUTORCH_XNNPACK, _ONNX)}
TARGETS = ("ios", "android", "host")
