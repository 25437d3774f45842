"""The formats a model can be built into, as data: what each wants of the graphs and what can execute it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """One file format with its exporter.

    Attributes:
        exporter: module of this room with ``export(graph, target, precision) -> ExportReport``.
        targets: what the format is built for.
        precisions: those it offers, the recommended one first.
        channels_last: N x H x W x C pictures and embeddings instead of N x C x H x W.
        folded: the decoder's form of attention (see :mod:`edgesam_mobile.deploy.attention`).
        packages: distributions whose versions decide what the exporter writes.
    """

    name: str
    exporter: str
    suffix: str
    targets: tuple[str, ...]
    precisions: tuple[str, ...]
    packages: tuple[str, ...]
    extra: str
    channels_last: bool = False
    folded: bool = False
    minimum_os: str | None = None


_COREML = Format(
    name="coreml",
    exporter="coreml",
    suffix=".mlpackage",
    targets=("ios",),
    precisions=("fp16", "fp32"),
    packages=("coremltools",),
    extra="coreml",
    minimum_os="iOS 16",
)
_EXECUTORCH_COREML = Format(
    name="executorch-coreml",
    exporter="executorch_coreml",
    suffix=".pte",
    targets=("ios",),
    precisions=("fp16",),
    packages=("executorch", "coremltools"),
    extra="executorch",
    minimum_os="iOS 16",
)
_TFLITE = Format(
    name="tflite",
    exporter="tflite",
    suffix=".tflite",
    targets=("android",),
    precisions=("fp32", "fp16"),
    packages=("litert-torch", "ai-edge-quantizer"),
    extra="tflite",
    channels_last=True,
    minimum_os="Android 8 (API 26)",
)
_EXECUTORCH_XNNPACK = Format(
    name="executorch-xnnpack",
    exporter="executorch_xnnpack",
    suffix=".pte",
    targets=("android",),
    precisions=("fp32",),
    packages=("executorch",),
    extra="executorch",
    folded=True,
    minimum_os="Android 8 (API 26)",
)
_ONNX = Format(
    name="onnx",
    exporter="onnx",
    suffix=".onnx",
    targets=("host",),
    precisions=("fp32",),
    packages=("onnx", "onnxscript"),
    extra="onnx",
    folded=True,
)

FORMATS = {f.name: f for f in (_COREML, _EXECUTORCH_COREML, _TFLITE, _EXECUTORCH_XNNPACK, _ONNX)}
TARGETS = ("ios", "android", "host")
