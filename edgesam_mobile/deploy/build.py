"""From weights to a package: plan the exports, run those that are missing, assemble."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from edgesam_mobile.deploy import cache
from edgesam_mobile.deploy.formats import FORMATS
from edgesam_mobile.deploy.options import BuildOptions
from edgesam_mobile.deploy.place import refuse_other_content, refuse_unwritable
from edgesam_mobile.deploy.precision import PRECISIONS, Plan
from edgesam_mobile.deploy.stages import EXPORTED_UPSAMPLE, Report, Stage, common_key, export_missing, parts, plan
from edgesam_mobile.errors import StorageError, UsageError
from edgesam_mobile.files import atomic_folder, sha256_of
from edgesam_mobile.model.load import read_weights
from edgesam_mobile.model.prior import PriorRule
from edgesam_mobile.model.registry import Architecture, architecture, refuse_undeployable
from edgesam_mobile.model.sam import MASK_THRESHOLD, PIXEL_MEAN, Provenance
from edgesam_mobile.package.card import CARD_NAME, model_card
from edgesam_mobile.package.manifest import (
    Artifact,
    CalibrationRecord,
    Git,
    GraphRecord,
    Manifest,
    Mask,
    Picture,
    Prior,
    Prompt,
    Quantisation,
    Weights,
    record_file,
    write_manifest,
)
from edgesam_mobile.weights.kept import keep
from edgesam_mobile.weights.registry import REGISTRY, entry


@dataclass
class BuildResult:
    """What a build did: the package, its manifest, each stage's cost."""

    package: Path
    manifest: Manifest
    stages: list[Stage] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def peak_bytes(self) -> int:
        """Upper bound of the exporters' memory together: they run two at a time."""
        peaks: dict[str, int] = {}
        for stage in self.stages:
            peaks[stage.form.name] = max(peaks.get(stage.form.name, 0), stage.peak_bytes)
        return sum(sorted(peaks.values())[-2:])


def build(
    options: BuildOptions,
    package: Path,
    *,
    report: Report = lambda text: None,
    note: Report = lambda text: None,
) -> BuildResult:
    """Build a package.

    Args:
        package: folder to write; an older package there is replaced once the new one is complete, unless it holds
            a file that no build has put there.
        report: called once per stage, with what it was and what it took.
        note: called now and then during a stage that takes minutes, with how far it is.

    Raises:
        UsageError, FetchError, WeightsError: as :func:`edgesam_mobile.load_model`; a UsageError also for weights of
            a model that is not for phones, before they are fetched.
        EnvironmentMissing: a converter is not installed.
        StorageError: ``package`` holds something else, cannot be written, or the disk is full.
    """
    started = time.monotonic()
    if options.calibration is None and options.calibrated():
        raise UsageError("these precisions are calibrated", hint="give pictures to measure ranges on")
    refuse_other_content(package)
    refuse_unwritable(package)
    for name in filter(None, (options.model, options.weights)):
        refuse_undeployable(name)
    path, _, provenance = read_weights(options.weights, offline=options.offline)
    spec = architecture(provenance.architecture)
    options = replace(options, input_size=options.input_size or provenance.image_size)
    _check_fit(spec, options)
    stages = plan(options, provenance, spec)
    export_missing(stages, path, common_key(provenance, spec, options), report, note, options.calibration)
    if provenance.weights_name not in REGISTRY:
        keep(path, provenance.weights_sha256)
    with atomic_folder(package) as folder:
        manifest = _assemble(folder, stages, provenance, spec, options)
    return BuildResult(package, manifest, stages, time.monotonic() - started)


def _assemble(
    folder: Path,
    stages: list[Stage],
    provenance: Provenance,
    spec: Architecture,
    options: BuildOptions,
) -> Manifest:
    """Copy the exports into ``folder`` and write the manifest and the model card."""
    chosen = options.chosen()
    by_name = {(stage.form.name, stage.part): stage for stage in stages}
    artifacts = []
    for name, precisions in chosen.items():
        form = FORMATS[name]
        for precision in precisions:
            graphs = {part: options.plan(form, precision, part, spec.name) for part in parts(options)}
            identifier = f"{name}-{precision}"
            records = {
                part: _place(folder / identifier, folder, by_name[name, part], plan) for part, plan in graphs.items()
            }
            artifacts.append(
                Artifact(
                    id=identifier,
                    format=name,
                    precision=precision,
                    targets=list(form.targets),  # type: ignore[arg-type]
                    minimum_os=form.least_os(plan.precision for plan in graphs.values()),
                    **records,
                )
            )
    packages = tuple(p for name in chosen for p in FORMATS[name].packages)
    manifest = Manifest(
        model=options.model or provenance.weights_name,
        architecture=spec.name,
        upsample=EXPORTED_UPSAMPLE if spec.upsample else None,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        weights=_weights(provenance),
        picture=Picture(size=options.input_size, pad_rgb=PIXEL_MEAN),
        prompt=Prompt(slots=options.slots, prompts_per_call=options.prompts, mask_input=options.mask_input),
        mask=Mask(
            low_resolution=options.input_size // 4,
            threshold=MASK_THRESHOLD,
            score=options.score or spec.score,  # type: ignore[arg-type]
            point_masks=spec.point_masks,  # type: ignore[arg-type]
        ),
        prior=_prior(options),
        calibration=_calibration(options),
        artifacts=artifacts,
        tools={"python": sys.version.split()[0], **cache.tool_versions(packages)},
        git=_git_state(),
    )
    write_manifest(folder, manifest)
    (folder / CARD_NAME).write_text(model_card(manifest), encoding="utf-8")
    return manifest


def _weights(provenance: Provenance) -> Weights:
    return Weights(
        name=provenance.weights_name,
        sha256=provenance.weights_sha256,
        licence=provenance.licence,
        commercial_use=provenance.commercial_use,
        origin=provenance.origin,
        upsample=provenance.upsample,
        trained=provenance.trained,
    )


def _calibration(options: BuildOptions) -> CalibrationRecord | None:
    used = options.calibration
    if used is None or not options.calibrated():
        return None
    return CalibrationRecord(
        source=used.source,
        pictures=used.pictures,
        views=len(used.views),
        prompts=used.prompts,
        sha256=used.sha256,
        real=used.real,
    )


def _place(artifact: Path, package: Path, stage: Stage, plan: Plan) -> GraphRecord:
    """Copy one export from the cache into an artefact's folder."""
    source = cache.lookup(stage.keys[plan.key])
    if source is None:
        raise StorageError(f"{stage.name} vanished from the cache", hint="build again")
    target = artifact / f"{stage.part}{stage.form.suffix}"
    target.parent.mkdir(exist_ok=True)
    exported = source / target.name
    if exported.is_dir():
        shutil.copytree(exported, target)
    else:
        shutil.copyfile(exported, target)
    report = json.loads((source / "report.json").read_text())
    return GraphRecord(
        file=record_file(package, target),
        op_types=report["op_types"],
        quantisation=_quantisation(plan),
        **report["graph"],
    )


def _quantisation(plan: Plan) -> Quantisation:
    precision = PRECISIONS[plan.precision]
    return Quantisation(
        precision=plan.precision,
        weights=precision.weights,
        activations=precision.activations,
        left_out=list(plan.left_out),
        instead=plan.instead or None,
        reason=plan.reason or None,
    )


def _check_fit(spec: Architecture, options: BuildOptions) -> None:
    """The weights must be of the model asked for, and that one for phones, of such an input size, and the plans'."""
    refuse_undeployable(spec.name)
    if options.model is not None and entry(options.model).architecture != spec.name:
        raise UsageError(
            f"{options.weights} holds {spec.name} weights, not {options.model}", hint="leave --model out"
        )
    if others := {plan.architecture for plan in options.plans.values()} - {"", spec.name}:
        raise UsageError(
            f"the plan is for {others.pop()}, the weights are {spec.name}",
            hint="make a plan for these weights with `edgesam-mobile quantize`",
        )
    if options.input_size not in spec.input_sizes:
        sizes = ", ".join(map(str, spec.input_sizes))
        raise UsageError(
            f"{spec.name} does not take {options.input_size}-pixel inputs", hint=f"choose one of {sizes}"
        )


def _prior(options: BuildOptions) -> Prior | None:
    if options.proposals is None:
        return None
    rule = PriorRule()
    return Prior(sha256=sha256_of(options.proposals), neighbours=rule.neighbours, confidence=rule.confidence)


def _git_state() -> Git | None:
    """The checkout this code runs from; ``None`` where it is installed (perhaps inside somebody else's checkout)."""
    here = Path(__file__)
    command = ["git", "-C", str(here.parent)]
    try:
        subprocess.run([*command, "ls-files", "--error-unmatch", here.name], capture_output=True, check=True)
        commit = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*command, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return Git(commit=commit.stdout.strip(), dirty=bool(status.stdout.strip()))
