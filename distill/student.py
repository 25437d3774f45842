"""The student: what it starts from, and the checkpoint that a finished run leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from distill.recipe import ModelRecipe, Recipe
from edgesam_mobile.errors import UsageError
from edgesam_mobile.model.load import load_strictly, read_weights
from edgesam_mobile.model.proposals import PREFIX as PROPOSALS
from edgesam_mobile.model.registry import architecture, build_model
from edgesam_mobile.model.sam import Provenance, Sam
from edgesam_mobile.weights.checkpoint import PARTS, Checkpoint, Metadata, write_checkpoint

_NECK = PARTS["encoder"] + "neck."


def build_student(
    recipe: ModelRecipe,
    teacher: Sam | None,
    teacher_weights: str = "",
    *,
    report: Callable[[str], None] = lambda _: None,
) -> tuple[Sam, Checkpoint | None]:
    """A student with its starting weights, and the checkpoint of ``model.init`` that some of them come from.

    What does not come from a checkpoint is random, from torch's global generator.

    Args:
        teacher: gives prompt encoder and mask decoder where the recipe says so.
        teacher_weights: its name or file; gives the neck, which a teacher with a cache has not kept.
        report: takes a warning where the teacher's decoder replaces another one that ``model.init`` holds.

    Raises:
        UsageError: unknown architecture, input size or up-sampling, or ``model.init`` lacks what is asked of it.
        WeightsError: the file is damaged, or a part that it holds does not fit.
    """
    model = build_model(
        recipe.architecture,
        upsample=recipe.upsample if _upsamples(recipe.architecture) else None,
        image_size=recipe.image_size,
    )
    own = model.state_dict()
    if recipe.neck_init == "teacher":
        given = read_weights(teacher_weights)[1].state
        own |= {key: given[key] for key in own if key.startswith(_NECK) and _same_shape(own, given, key)}
    init = read_weights(recipe.init)[1] if recipe.init else None
    wanted = ["encoder"]
    if recipe.decoder_init == "teacher":
        assert teacher is not None
        given = teacher.state_dict()
        own |= {key: given[key] for key in own if not key.startswith(PARTS["encoder"])}
        if init is not None and _replaces(own, init.state):
            report(
                f"warning: {recipe.init} has a trained decoder, which the teacher's replaces: "
                'set model.decoder_init = "init" to go on with it'
            )
    else:
        wanted += ["prompt", "decoder"]
    if init is not None:
        if recipe.decoder_init == "init" and (lacking := set(wanted) - set(init.metadata.parts)):
            raise UsageError(f"{recipe.init} holds no {' and no '.join(sorted(lacking))}", hint="check model.init")
        if "encoder" not in init.metadata.parts:
            raise UsageError(f"{recipe.init} holds no encoder", hint="check model.init")
        used = tuple(PARTS[part] for part in wanted)
        # Keys of these parts that are missing, unexpected or mis-shaped are refused below.
        own = {key: value for key, value in own.items() if not key.startswith(used)}
        own |= {key: value for key, value in init.state.items() if key.startswith(used)}
    load_strictly(model, own, source=recipe.init or "the teacher")
    return model, init


def write_student(
    path: Path,
    recipe: Recipe,
    weights: dict[str, Tensor],
    teacher: Provenance | None,
    begun: Sequence[Checkpoint],
    steps: int,
) -> Path:
    """Write what was trained as a checkpoint that ``build`` and ``predict`` take: the model, or the proposal head.

    It may be used as far as all that it was made from: the teacher and the weights that it began with.

    Args:
        begun: the checkpoints that it began with.

    Raises:
        StorageError: the file cannot be written.
    """
    head = recipe.stage.name == "proposals"
    weights = {key: value.contiguous() for key, value in weights.items() if key.startswith(PROPOSALS) is head}
    origins: list[Provenance | Metadata] = [
        *([teacher] if teacher else []),
        *(checkpoint.metadata for checkpoint in begun),
    ]
    licences = sorted({origin.licence or "unknown" for origin in origins})
    commercial = [origin.commercial_use for origin in origins]
    metadata = Metadata(
        architecture=recipe.model.architecture,
        upsample=recipe.model.upsample if _upsamples(recipe.model.architecture) else None,
        licence=None if licences == ["unknown"] else " and ".join(licences),
        commercial_use=False if False in commercial else None if None in commercial else True,
        provenance=_story(recipe, teacher, begun, steps),
        trained=all(origin.trained for origin in origins),
        image_size=recipe.model.image_size,
    )
    return write_checkpoint(path, weights, metadata)


def _same_shape(own: Mapping[str, Tensor], given: Mapping[str, Tensor], key: str) -> bool:
    return key in given and given[key].shape == own[key].shape


def _replaces(own: Mapping[str, Tensor], init: Mapping[str, Tensor]) -> bool:
    """Whether ``init`` holds another prompt encoder or decoder; one saved in half precision is the same."""
    shared = [key for key in own if not key.startswith(PARTS["encoder"]) and _same_shape(own, init, key)]
    return not all(torch.allclose(own[key].cpu(), init[key].float(), rtol=1e-3, atol=1e-6) for key in shared)


def _upsamples(name: str) -> bool:
    return architecture(name).upsample is not None


def _story(recipe: Recipe, teacher: Provenance | None, begun: Sequence[Checkpoint], steps: int) -> str:
    data = ", ".join(_short(source.spec) for source in recipe.data.sources)
    story = f"distill stage {recipe.stage.name}, {steps} steps of {recipe.run.batch_size} pictures at "
    story += f"{recipe.model.image_size}, data {data}"
    if teacher is not None:
        story += f", teacher {teacher.weights_name} ({teacher.weights_sha256[:12]})"
    for checkpoint in begun:
        story += f", started from {checkpoint.sha256[:12]} ({checkpoint.metadata.provenance or 'of unknown origin'})"
    return story


def _short(spec: str) -> str:
    """A source without the folders of the machine that it was read on."""
    kind, *places = spec.split(":")
    return ":".join([kind, *(Path(place).name for place in places)])
