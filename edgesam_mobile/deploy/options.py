"""What to build, checked as a whole before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgesam_mobile.deploy.calibration import Calibration
from edgesam_mobile.deploy.formats import FORMATS, TARGETS, Format
from edgesam_mobile.deploy.precision import PRECISIONS, RECOMMENDED, Plan
from edgesam_mobile.errors import UsageError


@dataclass(frozen=True)
class BuildOptions:
    """What to build. Every combination is checked before anything runs.

    Attributes:
        weights: a registered name or a checkpoint file.
        model: the registered model that a checkpoint file must fit; ``None`` takes what the file says.
        targets: some of ``ios``, ``android``, ``host``.
        precisions: keys of :data:`~edgesam_mobile.deploy.precision.PRECISIONS`, or ``recommended``; ``None`` takes
            ``fp16`` and ``fp32`` where a format has them.
        plans: what searches found, by format and graph; each takes the place of a plan of its precision.
        calibration: real pictures and prompts, which some precisions need.
        input_size: side of the encoder's square input in pixels; 0 takes what the weights were trained with.
        slots: points a prompt can have (a box takes two); 1 to 64.
        prompts: prompts answered per call; 1 to 64.
        score: ``iou``, ``stability``, or ``None`` for what suits the architecture.
        image_dtype: pictures of TFLite encoders, ``float32`` or ``uint8``.
        proposals: checkpoint of a proposal head trained on these weights: adds the third graph; ``None``: no prior.
    """

    weights: str
    model: str | None = None
    targets: tuple[str, ...] = TARGETS
    precisions: tuple[str, ...] | None = None
    input_size: int = 0
    slots: int = 6
    prompts: int = 1
    mask_input: bool = False
    score: str | None = None
    image_dtype: str = "float32"
    proposals: Path | None = None
    plans: Mapping[tuple[str, str], Plan] = field(default_factory=dict)
    calibration: Calibration | None = None
    offline: bool = False

    def __post_init__(self) -> None:
        for name, value in (("slots", self.slots), ("prompts", self.prompts)):
            if not 1 <= value <= 64:
                raise UsageError(f"--{name} is 1 to 64, not {value}")
        unknown = set(self.targets) - set(TARGETS)
        if unknown or not self.targets:
            raise UsageError(f"no target {', '.join(sorted(unknown))!r}", hint=f"choose {', '.join(TARGETS)} or all")
        if strange := [p for p in self.precisions or () if p not in (*PRECISIONS, RECOMMENDED)]:
            raise UsageError(f"no precision {strange[0]!r}", hint=f"choose {', '.join(PRECISIONS)} or {RECOMMENDED}")
        if self.score not in (None, "iou", "stability"):
            raise UsageError(f"no score {self.score!r}", hint="choose iou or stability")
        if self.image_dtype not in ("float32", "uint8"):
            raise UsageError(f"no image dtype {self.image_dtype!r}", hint="choose float32 or uint8")
        for (name, part), plan in self.plans.items():
            built = self.chosen().get(name, ())
            if not any(self.plan(FORMATS[name], precision, part) is plan for precision in built):
                raise UsageError(
                    f"the plan for the {name} {part} in {plan.precision} would do nothing: that is not built",
                    hint=f"add --precision {plan.precision} and a target of {name}, or leave the plan out",
                )

    def chosen(self) -> dict[str, tuple[str, ...]]:
        """The formats to build, each with its precisions; one asked for twice is built once.

        Raises:
            UsageError: no format of these targets offers the precision asked for.
        """
        chosen = {}
        for form in FORMATS.values():
            asked = form.precisions if self.precisions is None else filter(form.offers, self.precisions)
            wanted = tuple(dict.fromkeys(asked))
            if wanted and set(form.targets) & set(self.targets):
                chosen[form.name] = wanted
        if not chosen:
            raise UsageError(f"no format for {', '.join(self.targets)} offers {', '.join(self.precisions or ())}")
        return chosen

    def plan(self, form: Format, precision: str, part: str, architecture: str | None = None) -> Plan:
        """How one graph of an artefact of :meth:`chosen` is compressed."""
        plain = form.recommendation(part, architecture) if precision == RECOMMENDED else Plan(precision)
        found = self.plans.get((form.name, part))
        return found if found is not None and found.precision == plain.precision else plain

    def calibrated(self) -> bool:
        """Whether anything to build needs pictures and prompts to measure ranges on."""
        return any(
            self.plan(FORMATS[name], precision, part).calibrated
            for name, precisions in self.chosen().items()
            for precision in precisions
            for part in ("encoder", "decoder")
        )
