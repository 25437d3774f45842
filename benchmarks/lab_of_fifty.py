"""Fifty simulated devices at once, most of them with something that goes wrong: is every sample accounted for, and
how many events a second does one desktop take? ``python benchmarks/lab_of_fifty.py`` prints Markdown.

The devices run in this process too, so throughput and memory are those of both sides together.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from edgesam_mobile.errors import DeviceError
from edgesam_mobile.lab.protocol.events import Event
from edgesam_mobile.lab.protocol.launch import LaunchEvents, measure
from edgesam_mobile.lab.protocol.link import Patience
from edgesam_mobile.lab.protocol.requests import (
    Golden,
    GraphFile,
    Job,
    JobMask,
    JobPicture,
    JobPrompt,
    Measure,
    Prompted,
    Tensor,
    WarmUp,
)
from edgesam_mobile.lab.protocol.session import Session
from edgesam_mobile.lab.protocol.stream import Reader
from edgesam_mobile.lab.records import CaseRecord, DeviceRecord, LaunchRecord
from edgesam_mobile.lab.simulated import Fault, SimulatedDevice

CONTENTS = {"encoder": b"no encoder " * 60_000, "decoder": b"no decoder " * 1000, "picture": b"P6", "mask": b"P4"}
TIGHT = 100_000  # bytes of storage that no encoder fits into
# What goes wrong, and what the launches then are; every device has the next one of these.
SCRIPTS: dict[str, tuple[tuple[Fault, ...], str]] = {
    "nothing": ((), "complete"),
    "cable pulled in put": ((Fault("cable", "put", 500_000),), "complete"),
    "cable pulled in run": ((Fault("cable", "sent", 40),), "complete"),
    "harness killed in run": ((Fault("kill", "run", 60),), "truncated once"),
    "gap on the way": ((Fault("gap", "sent", 40),), "complete"),
    "storage full": ((), "refused"),
    "device restarts in run": ((Fault("reboot", "run", 60),), "truncated once"),
    "cable pulled in run and twice in fetch": (
        (Fault("cable", "sent", 40), Fault("cable", "fetch", 80), Fault("cable", "fetch", 120)),
        "complete",
    ),
    "harness killed in put": ((Fault("kill", "put", 500_000),), "complete"),
    "silence": ((Fault("silence", "sent", 40, seconds=60.0),), "complete"),
    "wall clock jumps": ((Fault("clock", "run", 40),), "complete"),
    "malformed line": ((Fault("malformed", "sent", 40),), "complete"),
    "bad UTF-8": ((Fault("not-utf8", "sent", 40),), "complete"),
    "oversized line": ((Fault("oversized", "sent", 40),), "complete"),
    "reordered lines": ((Fault("reordered", "sent", 40),), "complete"),
    "half a line": ((Fault("truncated", "sent", 40),), "complete"),
}
PATIENCE = Patience(idle=20.0, job=3.0, reconnect=30.0)


@dataclass
class Visit:
    """What came of one device; ``kept`` is its own count of samples."""

    script: str
    launches: list[LaunchRecord] = field(default_factory=list)
    events: int = 0
    kept: int = 0
    refused: str | None = None

    @property
    def arrived(self) -> int:
        """Samples in the launches, each counted once."""
        return sum(len({sample.seq for sample in launch.samples}) for launch in self.launches)

    def as_scripted(self) -> bool:
        """Whether its launches ended as its faults have it, and no sample is missing or double."""
        counts = Counter(launch.status for launch in self.launches)
        expected = {
            "complete": counts["complete"] == len(self.launches) > 0,
            "truncated once": counts["truncated"] == 1 and counts["complete"] == len(self.launches) - 1,
            "refused": self.refused is not None and not self.launches,
        }[SCRIPTS[self.script][1]]
        doubles = any(len(n.samples) != len({s.seq for s in n.samples}) for n in self.launches)
        return expected and self.arrived == self.kept and not doubles


def run_lab(devices: int, *, jobs: int, rounds: int, folder: Path) -> list[Visit]:
    """Visit so many simulated devices at once, each with the next script, and run jobs on each."""
    sources = {stored(name): folder / name for name in CONTENTS}
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    scripts = [list(SCRIPTS)[n % len(SCRIPTS)] for n in range(devices)]
    with ThreadPoolExecutor(devices) as pool:
        return list(
            pool.map(lambda n: visit(n, scripts[n], sources, jobs, rounds, folder / f"device-{n}"), range(devices))
        )


def visit(number: int, script: str, sources: dict[str, Path], jobs: int, rounds: int, folder: Path) -> Visit:
    """One device from the first file to the last job."""
    found, name = Visit(script), f"simulated-{number}"
    capacity = TIGHT if script == "storage full" else None

    def count(_event: Event) -> None:
        found.events += 1

    with (
        SimulatedDevice(folder, name=name, seed=number, faults=SCRIPTS[script][0], capacity=capacity) as device,
        Session(device.connect, patience=PATIENCE) as session,
    ):
        try:
            for path, source in sources.items():
                session.put(source, path)
        except DeviceError as error:
            found.refused = error.message
            return found
        for index in range(jobs):
            job = a_job(f"{name}-{index}", rounds)
            case = CaseRecord("none", "simulated", "none", "simulated", job.delegate)
            launch = LaunchEvents(job.job, case, DeviceRecord(name, "simulated"), index)
            found.launches.append(measure(session, job, launch, on_event=count))
        found.kept = sum(device.samples.values())
    return found


def read_kept(folder: Path) -> tuple[int, float]:
    """Read the devices' kept streams from their files; gives the number of events and the seconds that it took."""
    contents = [path.read_bytes() for path in sorted(folder.glob("device-*/jobs/*.jsonl"))]
    started = time.monotonic()
    events = sum(len(Reader("one-job").feed(content)) for content in contents)
    return events, time.monotonic() - started


def stored(name: str) -> str:
    """Where a file of ``CONTENTS`` belongs on a device."""
    folder = "models" if "coder" in name else "inputs"
    return f"{folder}/{hashlib.sha256(CONTENTS[name]).hexdigest()}/{name}"


def a_job(job: str, rounds: int) -> Job:
    """A job of so many frames on the files of ``CONTENTS``."""
    tensor = Tensor(name="x", shape=(1,), dtype="float32", layout="N", meaning="nothing")
    encoder, decoder = (
        GraphFile(
            path=stored(name),
            sha256=hashlib.sha256(CONTENTS[name]).hexdigest(),
            inputs=(tensor,),
            outputs=(tensor,),
        )
        for name in ("encoder", "decoder")
    )
    frame = Prompted(image=stored("picture"), points=((0.0, 0.0),), labels=(1,))
    golden = Golden(**dict(frame), mask=stored("mask"), best=0)
    return Job(
        job=job,
        label=job,
        format="simulated",
        delegate="cpu",
        encoder=encoder,
        decoder=decoder,
        picture=JobPicture(size=1024, pad_rgb=(0.0, 0.0, 0.0)),
        prompt=JobPrompt(slots=1, prompts_per_call=1, mask_input=False),
        mask=JobMask(low_resolution=256, threshold=0.0, score="iou", point_masks=4),
        frame=frame,
        golden=(golden,),
        least_iou=0.95,
        warm_up=WarmUp(rounds=10, seconds=60.0, window=3, tolerance=0.05),
        measure=Measure(seconds=0.0, rounds=rounds),
        state_every=1.0,
        seed=0,
    )


def print_visits(visits: Iterable[Visit]) -> None:
    """One row a script."""
    print("| what goes wrong | devices | launches | samples kept | samples arrived | as scripted |")
    print("|--|--|--|--|--|--|")
    for script in SCRIPTS:
        those = [visit for visit in visits if visit.script == script]
        if not those:
            continue
        statuses = Counter(launch.status for visit in those for launch in visit.launches)
        launches = ", ".join(f"{n} {status}" for status, n in statuses.most_common()) or "none: refused"
        kept, arrived = sum(v.kept for v in those), sum(v.arrived for v in those)
        verdict = "yes" if all(v.as_scripted() for v in those) else "**no**"
        print(f"| {script} | {len(those)} | {launches} | {kept} | {arrived} | {verdict} |")


def main() -> None:
    """Run the lab and print what came of it; exit code 1 if a sample is missing or a launch not as scripted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=200, help="frames of a job, five samples each")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        started = time.monotonic()
        visits = run_lab(chosen.devices, jobs=chosen.jobs, rounds=chosen.rounds, folder=Path(name))
        took = time.monotonic() - started
        read, reading = read_kept(Path(name))
    events = sum(visit.events for visit in visits)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print_visits(visits)
    print(
        f"\n{len(visits)} simulated devices: {events} events in {took:.1f} s, {events / took:.0f} a second, and at",
        end="",
    )
    print(
        f" most {peak / 2**20:.0f} MiB, devices and desktop in one process. Reading what the devices kept once more,"
    )
    print(f"without them: {read} events in {reading:.1f} s, {read / reading:.0f} a second.")
    sys.exit(0 if all(visit.as_scripted() for visit in visits) else 1)


if __name__ == "__main__":
    main()
