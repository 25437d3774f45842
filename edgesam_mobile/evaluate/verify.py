"""Every artefact of a package against the PyTorch model it was built from, on real pictures and prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesam_mobile.errors import EdgeSamError, EnvironmentMissing, StorageError, VerificationFailed
from edgesam_mobile.evaluate.metrics import LEAST_IOU, cosine, mask_iou, max_abs_error
from edgesam_mobile.evaluate.probes import PROBES, Probe
from edgesam_mobile.evaluate.reference import reference_model, weights_source
from edgesam_mobile.evaluate.structure import check_structure
from edgesam_mobile.model import SamPredictor
from edgesam_mobile.model.choice import best_mask, competing
from edgesam_mobile.package.manifest import Artifact, Manifest, check_file, read_manifest
from edgesam_mobile.picture import read_picture
from edgesam_mobile.runtime.old_tflite import environment
from edgesam_mobile.runtime.predictor import ArtifactPredictor, Decoded
from edgesam_mobile.runtime.session import OLD, RUNTIMES, Arithmetic, install_hint, runnable, runtime_of

Report = Callable[[str], None]

# Compressed further, an artefact may choose another of two masks of similar score, and then that answer alone says
# little: it is held to the mean over all answers. `eval` on annotated pictures is what judges its quality.
LEAST_MEAN_IOU = 0.85
# PyTorch itself scores a mask by less than this below its best one: either is a right answer.
TIE = 0.01
UNCOMPARED = "the boxes of its proposals were not compared with PyTorch's"


@dataclass(frozen=True)
class Reference:
    """PyTorch's answer to one prompt on one picture.

    Attributes:
        prompt: keyword arguments for ``predict``, in pixels of the picture.
        best: index of the mask to show.
        right: that mask, and any other that competes for this kind of prompt and scores as well, by index.
    """

    prompt: dict[str, Any]
    logits: NDArray[np.float32]
    best: int
    right: dict[int, NDArray[np.bool_]]


@dataclass
class Check:
    """What was found of one artefact; errors are over all pictures and probes.

    A package that takes mask prompts is asked one, one that answers several prompts in a call is asked as many at
    once, and where there is a proposals graph, a mask is made of its embedding.

    Attributes:
        executed: whether it was run here.
        runtime: what ran it; an interpreter where a phone has something else.
        passed: ``None`` where nothing was run and nothing is wrong: never to be shown as a success.
        note: what was checked otherwise or not at all, or why it failed.
        best_same: answers with the same best mask as PyTorch, or one that it scores as high, out of ``answers``.
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
    def executed(self) -> int:
        """How many checks ran an artefact; what is for information is no check."""
        return sum(check.executed and check.passed is not None for check in self.checks)

    @property
    def failed(self) -> list[str]:
        """Artefacts at fault."""
        return [check.id for check in self.checks if check.passed is False]

    @property
    def passed(self) -> bool:
        """Something was executed and nothing failed; artefacts that could not be executed count neither way."""
        return self.executed > 0 and not self.failed

    def require_pass(self, *, hint: str) -> None:
        """End with an error unless :attr:`passed`.

        Args:
            hint: where it is told how far off a failed artefact is.

        Raises:
            VerificationFailed: an artefact failed.
            EnvironmentMissing: nothing was executed.
        """
        if self.failed:
            raise VerificationFailed(f"not equal to PyTorch: {', '.join(self.failed)}", hint=hint)
        if not self.executed:
            formats = dict.fromkeys(artifact.format for artifact in self.manifest.artifacts)
            raise EnvironmentMissing(
                f"nothing was executed: no runtime here for {', '.join(formats)}",
                hint=install_hint(formats),
            )


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
        prompts = [probe.on(*image.shape[:2]) for probe in probes]
        answers[path] = [_reference(predictor, manifest, prompt) for prompt in prompts]
        if manifest.prompt.mask_input:
            # The last point's answer with the first's mask: neither alone would give it.
            points = [prompt for probe, prompt in zip(probes, prompts, strict=True) if probe.box is None]
            first = answers[path][0]
            asked = {**points[-1], "mask_input": first.logits[first.best][None]}
            answers[path].append(_reference(predictor, manifest, asked))
    return features, answers


def _reference(predictor: SamPredictor, manifest: Manifest, prompt: dict[str, Any]) -> Reference:
    masks, scores, logits = predictor.predict(num_multimask_outputs=4, **prompt)
    has_box, point_masks = "box" in prompt, manifest.mask.point_masks
    best = best_mask(scores, has_box=has_box, point_masks=point_masks)
    rivals = competing(len(scores), has_box=has_box, point_masks=point_masks)
    right = {i: np.asarray(masks[i], dtype=bool) for i in rivals if scores[best] - scores[i] < TIE}
    return Reference(prompt, logits, best, right)


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
        if artifact.proposals is not None:
            check.note = "; ".join(filter(None, (check.note, UNCOMPARED)))
        predictor = ArtifactPredictor(package, artifact.id, arithmetic=arithmetic, runtime=runtime)
        for path, image in images.items():
            predictor.set_image(image)
            _compare_embedding(check, predictor, features[path])
            for index, reference in enumerate(references[path]):
                decoded = predictor.decode(predictor.prompt(**reference.prompt))
                mask = _compare_answer(check, predictor, decoded, reference)
                if index == 0:
                    keep(artifact.id, path, mask)
            _compare_rows(check, predictor, references[path])
            if artifact.proposals is not None:
                _compare_proposals(check, predictor, image, references[path][0])
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
    check: Check, predictor: ArtifactPredictor, decoded: Decoded, reference: Reference
) -> NDArray[np.bool_]:
    """The mask that the artefact shows against PyTorch's of the same index, where that is a right answer."""
    mask = predictor.full_mask(decoded)
    check.logits_max_abs = _larger(check.logits_max_abs, max_abs_error(decoded.masks, reference.logits))
    check.logits_cosine = _smaller(check.logits_cosine, cosine(decoded.masks, reference.logits))
    check.answers += 1
    check.best_same += decoded.best in reference.right
    check.mask_ious.append(mask_iou(mask, reference.right.get(decoded.best, reference.right[reference.best])))
    return mask


def _compare_rows(check: Check, predictor: ArtifactPredictor, references: list[Reference]) -> None:
    """Different prompts in all rows of one call, where a call has several; the last, a mask's, in the second row."""
    rows = predictor.manifest.prompt.prompts_per_call
    if rows == 1:
        return
    asked = [references[-row % len(references)] for row in range(rows)]
    filled = [predictor.prompt(**reference.prompt) for reference in asked]
    together = {name: np.concatenate([prompt[name][:1] for prompt in filled]) for name in filled[0]}
    for decoded, reference in zip(predictor.decode_rows(together), asked, strict=True):
        _compare_answer(check, predictor, decoded, reference)


def _compare_proposals(
    check: Check, predictor: ArtifactPredictor, image: NDArray[np.uint8], reference: Reference
) -> None:
    """A mask of the proposals graph's embedding against PyTorch's; of its boxes, only what is true of any."""
    found = predictor.propose(predictor.preprocess(image))
    scores, boxes = (np.asarray(found[name], np.float32) for name in ("proposal_scores", "proposal_boxes"))
    if not (np.all((scores >= 0) & (scores <= 1)) and np.isfinite(boxes).all()):
        raise VerificationFailed("its proposals are no boxes with confidences of 0 to 1")
    prompt = {**predictor.prompt(**reference.prompt), "image_embeddings": found["image_embeddings"]}
    _compare_answer(check, predictor, predictor.decode(prompt), reference)


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
            check.mask_ious.append(mask_iou(found.right[found.best], expected.right[expected.best]))
    return check


def _verdict(check: Check) -> str:
    if not check.executed:
        return "not executed; " + (check.note or "files unaltered")
    return f"mask IoU {check.mask_iou_mean:.4f}" if check.passed and check.mask_iou_mean else f"FAILED: {check.note}"
