"""How much faster a training step is here than in a plain loop, in one interleaved run:
``python benchmarks/distill_steps.py``. See ``README.md`` beside this file.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batch import Batch, Prompts, normalise, valid_pixels
from distill.data.loader import Loader
from distill.losses import mask_losses, picture_weights, valid_cells
from distill.recipe import DataRecipe, PromptsRecipe, SourceRecipe
from distill.sampling import correction_points
from distill.stages.base import Stage
from distill.stages.encoder import EncoderStage
from distill.stages.prompts import PromptOptions, PromptStage
from distill.teacher import Teacher
from edgesam_mobile.errors import EdgeSamError
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.model.standin import untrained_model

SAMPLING_TARGET, STEP_TARGET = 2.0, 1.3
LEAST_SECONDS = 0.5


class KnownTeacher(Teacher):
    """Gives embeddings that are there already, as a cache does, so that the student is what is timed."""

    def __init__(self, model: Sam, embeddings: Tensor) -> None:
        super().__init__(model)
        self.embeddings = embeddings

    def embed(self, batch: Batch) -> Tensor:
        """The same for every batch."""
        return self.embeddings[: len(batch)]


@dataclass
class Clock:
    """Seconds of calls: on the wall, and of processor time, which others on the machine disturb less."""

    wall: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)

    def time(self, call: Callable[[], object], times: int = 1) -> None:
        wall, used = time.perf_counter(), time.process_time()
        for _ in range(times):
            call()
        self.wall.append((time.perf_counter() - wall) / times)
        self.used.append((time.process_time() - used) / times)


def main() -> None:
    """Run the benchmark and print its tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="edge-sam")
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--pictures", type=int, default=4, help="of a batch")
    parser.add_argument("--prompts", type=int, default=16, help="of a picture")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--data", help="as a recipe's, such as images:FOLDER of photographs; else pictures made in code"
    )
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    data = chosen.data or f"generated:{8 * chosen.pictures}"
    try:
        read = reading(data, chosen.image_size, chosen.pictures, chosen.prompts)
        batch = prompted(next(read), chosen.prompts)
        if batch.corrupt:
            sys.exit("error: {} cannot be used: {}".format(*batch.corrupt[0]))
        measure(chosen, data, batch, read)
    except EdgeSamError as error:
        sys.exit(f"error: {error.message}")


def measure(chosen: argparse.Namespace, data: str, batch: Batch, read: Iterator[Batch]) -> None:
    """Both tables, of one batch; ``read`` goes on to be read from, to time that."""
    embeddings = torch.randn(chosen.pictures, 256, chosen.image_size // 16, chosen.image_size // 16)

    def student() -> Sam:
        return untrained_model(chosen.model, image_size=chosen.image_size, upsample="bilinear")

    teacher = KnownTeacher(student().requires_grad_(False), embeddings)
    print(f"{chosen.model} at {chosen.image_size}, {chosen.pictures} pictures of {chosen.prompts} prompts, ", end="")
    print(f"{data}, {chosen.threads} threads, {chosen.repeats} repeats, torch {torch.__version__}\n")
    columns = ("what", "plain, processor s", "ours, processor s", "times faster [least, most]", "on the wall")
    print(f"| {' | '.join(columns)} | plain, rate on the wall | ours, rate on the wall | target | met |")
    print("|--|--|--|--|--|--|--|--|--|")
    repeats, prompts = chosen.repeats, chosen.pictures * chosen.prompts
    images, asked = (chosen.pictures, "images/s"), (prompts, "prompts/s")
    for masks in (1, 4):
        answers = Answers.made_up(batch, masks, chosen.image_size // 4)
        ours, plain = answers.ours, answers.plain
        kind = "box" if masks == 1 else "point"
        compared(f"sampling and loss, {prompts} {kind} prompts", plain, ours, repeats, SAMPLING_TARGET, asked)
    stage = EncoderStage(student(), teacher)
    ours, plain = step(stage, batch, quick=True), plain_feature_step(student(), embeddings, batch)
    compared(f"stage 1, {chosen.pictures} pictures", plain, ours, repeats, STEP_TARGET, images)
    stage = PromptStage(student(), teacher, PromptOptions())
    ours, plain = step(stage, batch, quick=True), plain_prompt_step(student(), teacher, batch)
    compared(f"stage 2, {prompts} box prompts", plain, ours, repeats, STEP_TARGET, asked)
    columns = ("data", "teacher", "forward and loss", "backward", "optimiser", "processor s in all")
    print(f"\n| step | {' | '.join(columns)} | rate on the wall |")
    print("|--|--|--|--|--|--|--|--|")
    looking = Teacher(untrained_model("mobile-sam", image_size=chosen.image_size).requires_grad_(False))
    for name, stage, counted in (
        ("stage 1", EncoderStage(student(), teacher), images),
        ("stage 2", PromptStage(student(), teacher, PromptOptions()), asked),
    ):
        broken_down(name, stage, looking, batch, read, repeats, counted)


def prompted(batch: Batch, prompts: int) -> Batch:
    """The pictures with as many random boxes each, whatever they show, and points in the boxes' middles."""
    image = torch.arange(len(batch)).repeat_interleave(prompts)
    corners = torch.rand(len(image), 2, 2).mul(batch.sizes.flip(1)[image][:, None]).sort(1).values
    boxes, middles = corners.flatten(1), corners.mean(1)
    return replace(batch, prompts=Prompts(image, boxes, middles, torch.rand(len(image), 1), "box"))


@dataclass
class Answers:
    """What two decoders might have said, and the work after it: the loss with its gradient, and the next point."""

    batch: Batch
    student: Tensor
    teacher: Tensor
    frame: int

    @staticmethod
    def made_up(batch: Batch, masks: int, side: int) -> Answers:
        """Smooth blobs; the student's are shifted a little."""
        assert batch.prompts is not None
        blobs = torch.randn(len(batch.prompts), masks, side // 8, side // 8)
        teacher = F.interpolate(blobs, size=(side, side), mode="bicubic") * 4
        return Answers(batch, teacher.roll(2, -1).requires_grad_(), teacher, 4 * side)

    def ours(self) -> None:
        """All prompts at once."""
        prompts = self.batch.prompts
        assert prompts is not None
        side, target = self.student.shape[-1], self.teacher > 0
        valid = valid_cells(self.batch.sizes, self.frame, side)[prompts.image]
        weights = picture_weights(prompts.image, len(self.batch))
        bce, dice = mask_losses(self.student, target, valid)
        torch.autograd.grad(((5 * bce + 5 * dice) * weights).sum(), self.student)
        correction_points(self.student[:, 0] > 0, target[:, 0], valid, prompts.uniform[:, 0], self.frame)

    def plain(self) -> None:
        """One prompt after the other, in single precision."""
        loss, _ = self.plain_loss()
        torch.autograd.grad(loss, self.student)

    def plain_loss(self) -> tuple[Tensor, Tensor]:
        """The loss and P x 3: x, y and label of the next points."""
        prompts = self.batch.prompts
        assert prompts is not None
        side = self.student.shape[-1]
        area = valid_pixels(self.batch.sizes, self.frame).float()
        valid = F.interpolate(area[:, None], size=(side, side), mode="bilinear")[:, 0] > 0.5
        total, points = torch.zeros(()), []
        for n, picture in enumerate(prompts.image.tolist()):
            inside, target = valid[picture].float(), (self.teacher[n] > 0).float()
            entropy = F.binary_cross_entropy_with_logits(self.student[n], target, reduction="none")
            bce = (entropy * inside).sum() / (inside.sum() * len(target))
            found, wanted = self.student[n].sigmoid() * inside, target * inside
            dice = 1 - (2 * (found * wanted).sum((1, 2)) + 1) / (found.sum((1, 2)) + wanted.sum((1, 2)) + 1)
            total = total + (5 * bce + 5 * dice.mean()) / len(prompts)
            points.append(self.plain_point(n, valid[picture]))
        return total, torch.tensor(points)

    def plain_point(self, n: int, valid: Tensor) -> tuple[float, float, float]:
        wanted = self.teacher[n, 0] > 0
        wrong = torch.nonzero(((self.student[n, 0] > 0) ^ wanted) & valid)
        if len(wrong) < 10:
            return 0.0, 0.0, -2.0
        y, x = wrong[torch.randint(len(wrong), (1,)).item()].tolist()
        return 4.0 * x, 4.0 * y, float(wanted[y, x])


def step(stage: Stage, batch: Batch, *, quick: bool) -> Callable[[], None]:
    """A whole training step: bfloat16 autocast and channels last if ``quick``, else neither."""
    if quick:
        stage.model.to(memory_format=torch.channels_last)
    stage.train()
    optimiser = torch.optim.AdamW([p for _, p in stage.trainable()], fused=True)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=quick):
            loss = stage(batch)["loss"]
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return run


def plain_feature_step(model: Sam, embeddings: Tensor, batch: Batch) -> Callable[[], None]:
    """Stage 1 in single precision, channels first; each picture's loss by itself."""
    encoder = model.image_encoder.train()
    optimiser = torch.optim.AdamW(encoder.parameters())

    def run() -> None:
        found, losses = encoder(normalise(model, batch)), []
        for one, wanted, size in zip(found, embeddings, batch.sizes, strict=True):
            valid = valid_cells(size[None], batch.frames.shape[-1], one.shape[-1])[0]
            losses.append(((one - wanted).square().mean(0) * valid).sum() / valid.sum())
        torch.stack(losses).mean().backward()
        optimiser.step()
        optimiser.zero_grad()

    return run


def plain_prompt_step(model: Sam, teacher: KnownTeacher, batch: Batch) -> Callable[[], None]:
    """Stage 2 with boxes and one correction: single precision, channels first, a decoder call for each picture."""
    model.train().prompt_encoder.requires_grad_(False)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    prompts, frame = batch.prompts, batch.frames.shape[-1]
    assert prompts is not None

    def decoded(one: Sam, embeddings: Tensor, points: Tensor | None) -> Tensor:
        masks, positions = [], one.prompt_encoder.get_dense_pe()
        for picture in range(len(batch)):
            mine = prompts.image == picture
            given = None if points is None else (points[mine, None, :2], points[mine, 2:])
            sparse, dense = one.prompt_encoder(given, prompts.boxes[mine], None)
            masks.append(one.mask_decoder(embeddings[picture : picture + 1], positions, sparse, dense, 1)[0])
        return torch.cat(masks)

    def run() -> None:
        found = model.image_encoder(normalise(model, batch))
        total, points = torch.zeros(()), None
        for _ in range(2):
            with torch.no_grad():
                theirs = decoded(teacher.model, teacher.embeddings, points)
            loss, points = Answers(batch, decoded(model, found, points), theirs, frame).plain_loss()
            total = total + loss / 2
        total.backward()
        optimiser.step()
        optimiser.zero_grad()

    return run


def compared(
    what: str,
    plain: Callable[[], None],
    ours: Callable[[], None],
    repeats: int,
    target: float,
    counted: tuple[int, str],
) -> None:
    """One row; the two take turns, so that what else the machine does touches both.

    ``counted`` is what one call works on, and the unit of the rate that this makes.
    """
    clocks, first = (Clock(), Clock()), Clock()
    plain(), ours()
    first.time(plain)
    times = max(1, round(LEAST_SECONDS / first.used[0]))  # short ones several times over, or the clock decides
    for _ in range(repeats):
        for clock, call in zip(clocks, (plain, ours), strict=True):
            clock.time(call, times)
    ratios = sorted(a / b for a, b in zip(clocks[0].used, clocks[1].used, strict=True))
    walls = statistics.median(a / b for a, b in zip(clocks[0].wall, clocks[1].wall, strict=True))
    met = "yes" if ratios[0] >= target else "no" if ratios[-1] < target else "not in every repeat"
    seconds = " | ".join(f"{statistics.median(clock.used):.4f}" for clock in clocks)
    spread = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
    rates = " | ".join(rate(counted, statistics.median(clock.wall)) for clock in clocks)
    print(f"| {what} | {seconds} | {spread} | {walls:.2f} | {rates} | at least {target:g} | {met} |", flush=True)


def rate(counted: tuple[int, str], seconds: float) -> str:
    """Such as ``4.3 images/s``."""
    return f"{counted[0] / seconds:.1f} {counted[1]}"


def reading(spec: str, side: int, pictures: int, prompts: int) -> Iterator[Batch]:
    """Batches of a data set, read in this process without end; with their prompts where it has annotations."""
    data = DataRecipe(sources=(SourceRecipe(spec=spec),), workers=0, prompts=PromptsRecipe(per_image=prompts))
    loader = Loader(
        data,
        image_size=side,
        batch_size=pictures,
        rank=0,
        world=1,
        seed=0,
        box_probability=1.0,
        rounds=1,
        needs_prompts=not spec.startswith("images:"),
    )
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1


def broken_down(
    name: str,
    stage: Stage,
    teacher: Teacher,
    batch: Batch,
    read: Iterator[Batch],
    repeats: int,
    counted: tuple[int, str],
) -> None:
    """One row: where a step's processor time goes, with the teacher's encoder on the fly."""
    stage.model.to(memory_format=torch.channels_last)
    stage.train()
    optimiser = torch.optim.AdamW([p for _, p in stage.trainable()], fused=True)
    clocks = {part: Clock() for part in ("data", "teacher", "forward", "backward", "optimiser")}
    told: dict[str, Tensor] = {}

    def forward() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            told.update(stage(batch))

    for _ in range(repeats + 1):
        clocks["data"].time(lambda: next(read))
        clocks["teacher"].time(lambda: teacher.embed(batch))
        clocks["forward"].time(forward)
        clocks["backward"].time(lambda: told["loss"].backward())
        clocks["optimiser"].time(optimiser.step)
        optimiser.zero_grad()
    seconds = [statistics.median(clock.used[1:]) for clock in clocks.values()]
    shares = " | ".join(f"{one / sum(seconds):.0%}" for one in seconds)
    wall = sum(statistics.median(clock.wall[1:]) for clock in clocks.values())
    print(f"| {name} | {shares} | {sum(seconds):.2f} | {rate(counted, wall)} |", flush=True)


if __name__ == "__main__":
    main()
