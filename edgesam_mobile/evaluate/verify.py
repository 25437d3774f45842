"""Every artefact of a package against the PyTorch model it was built from, on real pictures and prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesam_mobile.errors import EdgeSamError, EnvironmentMissing, StorageError
from edgesam_mobile.evaluate.metrics import LEAST_IOU, cosine, mask_iou, max_abs_error
from edgesam_mobile.evaluate.probes import PROBES, Probe
from edgesam_mobile.evaluate.reference import reference_model, weights_source
from edgesam_mobile.evaluate.structure import check_structure
from edgesam_mobile.model import SamPredictor
from edgesam_mobile.model.choice import best_mask
from edgesam_mobile.package.manifest import Artifact, Manifest, check_file, read_manifest
from edgesam_mobile.picture import read_picture
from edgesam_mobile.runtime.old_tflite import environment
from edgesam_mobile.runtime.predictor import ArtifactPredictor
from edgesam_mobile.runtime.session import OLD, RUNTIMES, Arithmetic, runnable, runtime_of

Report = Callable[[str], None]

# Compressed further, an artefact may choose another of two masks of similar score, and then that answer alone says
# little: it is held to the mean over all answers. `eval` on annotated pictures is what judges its quality.
LEAST_MEAN_IOU = 0.85
# PyTorch's own two best scores are closer than this: either mask is a right answer.
TIE = 0.01


@dataclass(frozen=True)
class Reference:
    """PyTorch's answer to one probe on one picture."""

    probe: Probe
    logits: NDArray[np.float32]
    scores: NDArray[np.float32]
    best: int
    mask: NDArray[np.bool_]
    tied: bool


@dataclass
class Check:
    """What was found of one artefact; errors are over all pictures and probes.

    Attributes:
        executed: whether it was run here.
        runtime: what ran it; an interpreter where a phone has something else.
        passed: ``None`` where nothing was run and nothing is wrong: never to be shown as a success.
        note: what was checked otherwise, or why it failed.
        best_same: answers with the same best mask as PyTorch, out of ``answers``.
    """

    id: str
    executed: bool = False
    runtime: str | None = None
    passed: bool | None = None
    note: str = ""
    embedding_max_abs: float | None = None
    embedding_cosine: float | None = None
    logits_max_abs: float | None = None
    logits_cosine: float | None = None
    mask_ious: list[float] = field(default_factory=list)
    best_same: int = 0
    answers: int = 0

    @property
    def mask_iou_mean(self) -> float | None:
        return float(np.mean(self.mask_ious)) if self.mask_ious else None

    @property
    def mask_iou_min(self) -> float | None:
        return min(self.mask_ious) if self.mask_ious else None


@dataclass
class Verification:
    """The outcome for a whole package."""

    manifest: Manifest
    pictures: list[str]
    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Nothing failed; artefacts that could not be executed count neither way."""
        return all(check.passed is not False for check in self.checks)


def verify(
    package: Path,
    pictures: Sequence[Path],
    *,
    weights: str | None = None,
    offline: bool = False,
    arithmetic: Arithmetic = "device-like",
    old_runtimes: bool = False,
    report: Report = lambda text: None,
    keep: Callable[[str, Path, NDArray[np.bool_]], None] = lambda artifact, picture, mask: None,
) -> Verification:
    """Hash every file again, run every artefact that can be run here, and hold it against PyTorch.

    Args:
        package: folder that ``edgesam-mobile build`` wrote.
        pictures: at least one picture file.
        weights: where the package's weights are, if neither the registry nor the cache knows.
        arithmetic: of interpreted artefacts, see :class:`~edgesam_mobile.runtime.session.SessionOptions`.
        old_runtimes: also run what phones of some years ago would run, on the runtimes that they have.
        report: called once per artefact.
        keep: called with each artefact's id, picture and mask for the first probe.

    Raises:
        PackageError: the manifest is damaged or a file has been altered.
        WeightsError: the package's own weights are not at hand.
        PictureError: a picture cannot be read.
        EnvironmentMissing: the old runtimes are not here and cannot be had.
    """
    manifest = read_manifest(package)
    for record in manifest.files():
        check_file(package, record)
    if old_runtimes:
        environment(offline=offline)  # before minutes of other work
    images = {path: read_picture(path) for path in pictures}
    probes = [probe for probe in PROBES if probe.slots() <= manifest.prompt.slots]
    source = weights_source(manifest, weights, offline=offline)
    features, references = _references(manifest, source, images, probes, offline)
    checks = []
    for artifact in manifest.artifacts:
        if runnable(artifact.format):
            check = _execute(package, artifact, artifact.format, arithmetic, images, features, references, keep)
        else:
            check = _inspect(package, artifact)
        checks.append(check)
        report(f"{artifact.id}: {_verdict(check)}")
        if old_runtimes and artifact.format in OLD:
            runtime = OLD[artifact.format]
            check = _execute(package, artifact, runtime, arithmetic, images, features, references)
            checks.append(check)
            report(f"{artifact.id} on {check.runtime}: {_verdict(check)}")
    trained = manifest.weights.upsample
    if trained != manifest.upsample:
        _, as_trained = _references(manifest, source, images, probes, offline, upsample=trained)
        checks.append(_compare_upsampling(f"pytorch with {trained} up-sampling", references, as_trained))
    return Verification(manifest, [str(path) for path in pictures], checks)


Images = dict[Path, NDArray[np.uint8]]
References = dict[Path, list[Reference]]


def _references(
    manifest: Manifest,
    source: str,
    images: Images,
    probes: list[Probe],
    offline: bool,
    *,
    upsample: str | None = None,
) -> tuple[dict[Path, NDArray[np.float32]], References]:
    """PyTorch's embeddings and answers, with the up-sampling that was exported unless another is asked for."""
    model = reference_model(manifest, source, upsample=upsample, offline=offline)
    predictor = SamPredictor(model, score=manifest.mask.score)
    features, answers = {}, {}
    for path, image in images.items():
        predictor.set_image(image)
        features[path] = predictor.features.numpy()
        answers[path] = [_reference(predictor, manifest, probe, image.shape[:2]) for probe in probes]
    return features, answers


def _reference(predictor: SamPredictor, manifest: Manifest, probe: Probe, size: tuple[int, int]) -> Reference:
    prompt: dict[str, Any] = probe.on(*size)
    masks, scores, logits = predictor.predict(num_multimask_outputs=4, **prompt)
    point_masks = manifest.mask.point_masks
    best = best_mask(scores, has_box=probe.box is not None, point_masks=point_masks)
    rivals = np.sort(scores[-point_masks:])
    tied = probe.box is None and bool(rivals[-1] - rivals[-2] < TIE)
    return Reference(probe, logits, scores, best, np.asarray(masks[best], dtype=bool), tied)


def _execute(
    package: Path,
    artifact: Artifact,
    runtime: str,
    arithmetic: Arithmetic,
    images: Images,
    features: dict[Path, NDArray[np.float32]],
    references: References,
    keep: Callable[[str, Path, NDArray[np.bool_]], None] = lambda artifact, picture, mask: None,
) -> Check:
    check = Check(artifact.id, executed=True, runtime=runtime_of(runtime, arithmetic))
    try:
        if RUNTIMES[runtime].interpreted:
            check.note = check_structure(package, artifact)
        predictor = ArtifactPredictor(package, artifact.id, arithmetic=arithmetic, runtime=runtime)
        for path, image in images.items():
            predictor.set_image(image)
            _compare_embedding(check, predictor, features[path])
            for index, reference in enumerate(references[path]):
                mask = _compare_answer(check, predictor, reference, image.shape[:2])
                if index == 0:
                    keep(artifact.id, path, mask)
    except StorageError:
        raise  # no fault of the artefact
    except EdgeSamError as error:
        check.passed, check.note = False, error.message
        return check
    finite = check.logits_max_abs is not None and bool(np.isfinite(check.logits_max_abs))
    least, worst, mean = LEAST_IOU.get(artifact.precision), check.mask_iou_min, check.mask_iou_mean
    if least is not None:
        check.passed = finite and worst is not None and worst >= least and check.best_same == check.answers
        needs = f"mask IoU of at least {least} and the same best mask everywhere"
    else:
        check.passed = finite and mean is not None and mean >= LEAST_MEAN_IOU
        needs = f"a mean mask IoU of at least {LEAST_MEAN_IOU}"
    if not check.passed:
        check.note = f"needs {needs}"
    return check


def _compare_embedding(check: Check, predictor: ArtifactPredictor, expected: NDArray[np.float32]) -> None:
    found = np.asarray(predictor.features, np.float32)
    if predictor.artifact.encoder.outputs[0].layout == "NHWC":
        found = found.transpose(0, 3, 1, 2)
    check.embedding_max_abs = _larger(check.embedding_max_abs, max_abs_error(found, expected))
    check.embedding_cosine = _smaller(check.embedding_cosine, cosine(found, expected))


def _compare_answer(
    check: Check, predictor: ArtifactPredictor, reference: Reference, size: tuple[int, int]
) -> NDArray[np.bool_]:
    prompt: dict[str, Any] = reference.probe.on(*size)
    decoded = predictor.decode(predictor.prompt(**prompt))
    mask = predictor.full_mask(decoded)
    check.logits_max_abs = _larger(check.logits_max_abs, max_abs_error(decoded.masks, reference.logits))
    check.logits_cosine = _smaller(check.logits_cosine, cosine(decoded.masks, reference.logits))
    check.answers += 1
    if decoded.best == reference.best:
        check.best_same += 1
        check.mask_ious.append(mask_iou(mask, reference.mask))
    elif reference.tied:
        # Another of two equally good masks: count it as the same, and compare the mask PyTorch would show.
        check.best_same += 1
        full = predictor.transform.upscale_masks(decoded.masks[reference.best], size)
        check.mask_ious.append(mask_iou(full > predictor.manifest.mask.threshold, reference.mask))
    else:
        check.mask_ious.append(mask_iou(mask, reference.mask))
    return mask


def _larger(so_far: float | None, new: float) -> float:
    """The larger of the two; NaN wins, whereas Python's own ``max`` may lose it."""
    return new if so_far is None else float(np.maximum(so_far, new))


def _smaller(so_far: float | None, new: float) -> float:
    """The smaller of the two; NaN wins."""
    return new if so_far is None else float(np.minimum(so_far, new))


def _inspect(package: Path, artifact: Artifact) -> Check:
    check = Check(artifact.id)
    try:
        check.note = check_structure(package, artifact)
    except EnvironmentMissing as error:
        check.note = f"structure not checked: {error.message}"
    except EdgeSamError as error:
        check.passed, check.note = False, error.message
    return check


def _compare_upsampling(name: str, exported: References, trained: References) -> Check:
    """How far the exported up-sampling alone moves the masks from those of the trained one; for information."""
    check = Check(
        name, executed=True, runtime="PyTorch", note="what the exported up-sampling alone changes; not a check"
    )
    for path, answers in exported.items():
        for found, expected in zip(answers, trained[path], strict=True):
            check.answers += 1
            check.best_same += found.best == expected.best
            check.mask_ious.append(mask_iou(found.mask, expected.mask))
    return check


def _verdict(check: Check) -> str:
    if not check.executed:
        return "not executed; " + (check.note or "files unaltered")
    return f"mask IoU {check.mask_iou_mean:.4f}" if check.passed and check.mask_iou_mean else f"FAILED: {check.note}"
