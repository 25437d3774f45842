"""The model card of a built package: its manifest in words, for people who meet it without this program."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from edgesam_mobile.package.manifest import FILE_NAME, Accuracy, Manifest, Quantisation, TensorSpec

CARD_NAME = "MODEL_CARD.md"

# What the Hugging Face Hub knows by these names; every other licence is "other" there, with a name of its own.
_HUB_LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc0-1.0")


def model_card(manifest: Manifest) -> str:
    """``MODEL_CARD.md``: front matter for the Hugging Face Hub, then what the package is and how to call it.

    It states what the manifest states; of figures, those that ``edgesam-mobile eval --record`` put there.
    """
    sections = (
        _front_matter(manifest),
        _introduction(manifest),
        _licences(manifest),
        _picture(manifest),
        _prompts(manifest),
        _outputs(manifest),
        *_prior(manifest),
        _artefacts(manifest),
        *_compression(manifest),
        *_accuracy(manifest),
        _tensors(manifest),
        _provenance(manifest),
        _unverified(manifest),
    )
    return "\n\n".join(sections) + "\n"


def _front_matter(manifest: Manifest) -> str:
    licence = manifest.weights.licence
    known = licence.lower() if licence and licence.lower() in _HUB_LICENCES else None
    lines = [f"license: {known or ('other' if licence else 'unknown')}"]
    if licence and not known:
        lines.append(f"license_name: {json.dumps(_slug(licence))}")
    formats = dict.fromkeys(_slug(artifact.format) for artifact in manifest.artifacts)
    tags = ["segment-anything", "image-segmentation", "on-device", *formats, _slug(manifest.architecture)]
    # JSON strings are YAML strings: nothing in a manifest can break out of the front matter.
    listed = [f"  - {json.dumps(tag)}" for tag in dict.fromkeys(tags)]
    lines += ["library_name: edgesam-mobile", "pipeline_tag: mask-generation", "tags:", *listed]
    return "\n".join(["---", *lines, "---"])


def _introduction(manifest: Manifest) -> str:
    text = (
        f"# {_cell(manifest.model)}\n\n"
        f"Promptable segmentation for phones: `{_cell(manifest.architecture)}` as two static graphs. The encoder "
        "turns a picture into an embedding, once a picture; the decoder turns the embedding and a prompt (points, "
        "a box) into masks, as often as the user taps.\n\n"
        f"Everything here is also in `{FILE_NAME}`, for programs."
    )
    if not manifest.weights.trained:
        text += "\n\n" + _note("UNTRAINED STAND-IN", "timing and structure only; masks mean nothing.")
    return text


def _licences(manifest: Manifest) -> str:
    weights = manifest.weights
    text = (
        "## Licence\n\n"
        f"- Weights: {_cell(weights.licence or 'unknown')}\n"
        f"- Code that built the package: {_cell(manifest.code_licence)}"
    )
    if weights.commercial_use is False:
        warning = f"the licence of the weights ({_cell(weights.licence or 'unknown')}) forbids commercial use."
        text += "\n\n" + _note("NO COMMERCIAL USE", f"{warning} The licence of the code does not change that.")
    elif weights.commercial_use is None:
        warning = "nobody has said whether these weights may be used commercially. Find out before you ship them."
        text += "\n\n" + _note("COMMERCIAL USE UNKNOWN", warning)
    return text


def _picture(manifest: Manifest) -> str:
    picture = manifest.picture
    low, high = picture.value_range
    pad = ", ".join(f"{value:g}" for value in picture.pad_rgb)
    rows = (
        ("input", f"{picture.size} x {picture.size} pixels, {picture.colours}, values {low:g} to {high:g}"),
        ("resize", picture.resize),
        ("padding", f"{picture.padding}; pad_rgb is ({pad})"),
        ("normalisation", picture.normalisation),
    )
    return "## Preparing a picture\n\n" + _table(("step", "rule"), rows)


def _prompts(manifest: Manifest) -> str:
    prompt = manifest.prompt
    count = f"{prompt.slots} slots a prompt, {prompt.prompts_per_call} prompt(s) a call"
    mask_input = "also takes an earlier low-resolution mask" if prompt.mask_input else "takes no earlier mask"
    return (
        f"## Prompts\n\nThe decoder has a fixed size: {count}. It {mask_input}.\n\n"
        + _table(("a slot holds", "label"), prompt.labels.items())
        + f"\n\n- Coordinates: {_cell(prompt.coordinates)}.\n- Padding: {_cell(prompt.padding_rule)}."
    )


def _outputs(manifest: Manifest) -> str:
    mask = manifest.mask
    score = {
        "iou": "the decoder's own prediction of each mask's IoU",
        "stability": "stability: the IoU of a mask with itself as its threshold moves (the decoder's own "
        "IoU prediction is not usable for these weights)",
    }[mask.score]
    rows = (
        ("masks", f"logits, {mask.low_resolution} x {mask.low_resolution}; inside where above {mask.threshold:g}"),
        ("to picture size", mask.upscaling),
        ("score", score),
        ("best mask", f"{mask.best}; `point_masks` is {mask.point_masks}"),
    )
    return "## Outputs\n\n" + _table(("what", "rule"), rows)


def _prior(manifest: Manifest) -> list[str]:
    if manifest.prior is None:
        return []
    prior = manifest.prior
    text = (
        "The proposals graph gives the encoder's embedding and with it scored boxes: load it instead of the encoder "
        f"where a point should mean a whole object. {prior.rule[0].upper()}{prior.rule[1:]} (`confidence` "
        f"{prior.confidence:g}, `neighbours` {prior.neighbours})."
    )
    return [f"## Granularity prior\n\n{text}"]


def _artefacts(manifest: Manifest) -> str:
    columns = ("id", "graph", "format", "precision", "targets", "minimum OS", "file", "MB", "sha256")
    rows = [
        (
            artifact.id,
            role,
            artifact.format,
            artifact.precision,
            ", ".join(artifact.targets),
            artifact.minimum_os or "–",
            f"`{graph.file.path}`",
            f"{graph.file.bytes / 1e6:.1f}",
            f"`{graph.file.sha256[:12]}`",
        )
        for artifact in manifest.artifacts
        for role, graph in artifact.graphs().items()
    ]
    return "## Artefacts\n\n" + _table(columns, rows)


def _compression(manifest: Manifest) -> list[str]:
    """One row a graph, where any stores or computes in other than plain floating point, and why."""
    graphs = [(a.id, role, graph.quantisation) for a in manifest.artifacts for role, graph in a.graphs().items()]
    if all(how is None or how.precision in ("fp32", "fp16") for _, _, how in graphs):
        return []
    rows = [
        (name, role, how.weights, how.activations, _left_out(how), how.reason or "–")
        for name, role, how in graphs
        if how is not None
    ]
    text = _table(("id", "graph", "weights", "activations", "left out", "why"), rows)
    if used := manifest.calibration:
        what = f"{used.pictures} picture(s)" if used.real else "random numbers, which no photograph resembles,"
        text += (
            f"\n\nRanges of activations were measured on {what} with {used.prompts} prompts in all, "
            f"from {_cell(used.source)}, sha256 `{used.sha256[:12]}`."
        )
    return [f"## Compression\n\n{text}"]


def _left_out(how: Quantisation) -> str:
    if not how.left_out:
        return "–"
    return f"{len(how.left_out)} groups of layers, in {how.instead or 'floating point'}"


def _accuracy(manifest: Manifest) -> list[str]:
    """One row an artefact: mean IoU in percent, and points lost against PyTorch."""
    table = manifest.accuracy
    if table is None:
        return []
    text = (
        f"Mean IoU in percent over {table.objects} objects on {table.pictures} pictures of `{_cell(table.data)}`, "
        f"measured {_cell(table.measured)}; in brackets the points lost against PyTorch in single precision. "
        "An interpreter stands for Apple's processors: it rounds half precision, and knows nothing else of them."
    )
    if table.budget is not None:
        text += f" Budget: {table.budget:g} points of the first column."
    columns = ("artefact", "executed by", "MB", *table.reference, "same best mask")
    reference = ("PyTorch", "PyTorch", "–", *(f"{value:.1f}" for value in table.reference.values()), "–")
    said = "; ".join(f"{_cell(name)}: {_cell(rule)}" for name, rule in table.protocol.items())
    return [f"## Accuracy\n\n{text}\n\n" + _table(columns, [reference, *_accuracy_rows(table)]) + f"\n\n{said}."]


def _accuracy_rows(table: Accuracy) -> list[Sequence[object]]:
    return [
        (
            row.artifact,
            row.executed_by,
            f"{row.bytes / 1e6:.1f}",
            *(
                f"{row.miou[label]:.1f} ({row.miou[label] - full:+.1f})" if label in row.miou else "–"
                for label, full in table.reference.items()
            ),
            "–" if row.same_best is None else f"{row.same_best:.1%}",
        )
        for row in table.rows
    ]


def _tensors(manifest: Manifest) -> str:
    """One table for each distinct signature: most formats share theirs."""
    users: dict[str, list[str]] = {}
    for artifact in manifest.artifacts:
        for role, graph in artifact.graphs().items():
            rows = [*_tensor_rows("in", graph.inputs), *_tensor_rows("out", graph.outputs)]
            table = _table(("", "name", "shape", "type", "layout", "meaning"), rows)
            users.setdefault(f"{role}\n{table}", []).append(f"`{artifact.id}`")
    parts = ["## Tensors"]
    for signature, ids in users.items():
        role, table = signature.split("\n", 1)
        parts += [f"### {role.capitalize()} of {', '.join(ids)}", table]
    return "\n\n".join(parts)


def _tensor_rows(direction: str, tensors: Iterable[TensorSpec]) -> list[Sequence[object]]:
    return [(direction, f"`{t.name}`", " x ".join(map(str, t.shape)), t.dtype, t.layout, t.meaning) for t in tensors]


def _provenance(manifest: Manifest) -> str:
    weights, git = manifest.weights, manifest.git
    rows = [
        ("weights", weights.name),
        ("origin of the weights", weights.origin or "unknown"),
        ("sha256 of the weights", f"`{weights.sha256}`"),
        ("up-sampling in training", weights.upsample or "none"),
        ("up-sampling in the encoder here", manifest.upsample or "none"),
        ("built", manifest.created),
        (
            "git",
            f"`{git.commit}`{', with uncommitted changes' if git.dirty else ''}" if git else "not from a checkout",
        ),
        *((name, version) for name, version in sorted(manifest.tools.items())),
    ]
    return "## Provenance\n\n" + _table(("what", "which"), rows)


def _unverified(manifest: Manifest) -> str:
    items = ["**Running on a phone.** The build runs on a computer; nothing here was run on a phone or an emulator."]
    if any("coreml" in artifact.format for artifact in manifest.artifacts):
        items.append(
            "**Core ML on Apple's processors.** Elsewhere its programs are interpreted: that tells whether a program "
            "is right, and what half precision does to it."
        )
    if manifest.accuracy is None:
        items.append("**Accuracy.** This card holds no such figures: none were measured for it.")
    items.append("**Speed.** This card holds no such figures. Measure on your own devices.")
    return "## What was not verified\n\n" + "\n".join(f"- {item}" for item in items)


def _note(title: str, text: str) -> str:
    return f"> [!WARNING]\n> **{title}**: {text}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["--"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(str(value)) for value in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text of a manifest that can break neither a table nor the page: one line, no cell borders, no HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-") or "unnamed"
