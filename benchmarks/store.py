"""How long the store takes for launches of 20,000 samples, and how large it gets: ``python benchmarks/store.py``, or
with the URL of an empty PostgreSQL database. Prints Markdown.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import uuid
from functools import partial
from pathlib import Path
from statistics import median
from timeit import timeit

from edgesam_mobile.lab.records import CaseRecord, DeviceRecord, LaunchRecord, RunRecord, SampleRecord, StateRecord
from edgesam_mobile.lab.store import open_store

seconds = partial(timeit, number=1)
STAGES = ("pre", "encode", "decode", "post", "frame")


def main() -> None:
    """Store, read, export and import launches, and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", help="a PostgreSQL database; a file in a temporary folder otherwise")
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--launches", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(chosen.url or f"{folder}/measured.sqlite", Path(folder), chosen.samples, chosen.launches)


def measure(where: str, folder: Path, samples: int, count: int) -> None:
    """Measure one place with ``count`` launches."""
    rows = [("open, a new one", seconds(lambda: open_store(where)))]
    rows.append(("open again", median(seconds(lambda: open_store(where)) for _ in range(5))))
    store = open_store(where)
    run = a_run()
    store.begin(run)
    launches = [a_launch(samples, index) for index in range(count)]
    rows.append(("add a launch", median([seconds(lambda x=x: store.add_launch(run.id, x)) for x in launches])))  # type: ignore[misc]
    rows.append((f"read {count} launches", seconds(lambda: store.run(run.id))))
    assert store.run(run.id).launches == tuple(launches)
    file = folder / "run.jsonl"
    rows.append((f"export {count} launches", seconds(lambda: store.export(run.id, file))))
    other = open_store(folder / "other.sqlite")
    rows.append((f"import {count} launches (SQLite)", seconds(lambda: other.import_(file))))
    print(f"{count} launches of {samples} samples in {store.name.partition('@')[0]}\n")
    print("| what | seconds |\n| -- | -- |")
    for what, took in rows:
        print(f"| {what} | {took:.3f} |")
    sizes = {"export": file, "store": Path(where)}
    for what, path in sizes.items():
        if path.exists():
            size = path.stat().st_size
            print(f"\n{what}: {size / 1e6:.2f} MB, {size / samples / count:.1f} bytes a sample")


def a_run() -> RunRecord:
    """A run without launches."""
    created = "2026-11-25T16:00:00Z"
    return RunRecord(uuid.uuid4().hex, created, "running", "edge-sam", "0" * 64, False, "1" * 64, {"launches": 5})


def a_launch(samples: int, index: int) -> LaunchRecord:
    """Made-up frames of about 25 ms, with a state every second."""
    chance, at, found = random.Random(index), 10**15, []
    for seq in range(samples):
        took = int(chance.gauss(5e6, 5e5))
        at += took
        found.append(SampleRecord(seq, STAGES[seq % 5], seq // 5, took, at, took - 1000))
    states = [StateRecord(samples + i, 10**15 + i * 10**9, {"thermal": "nominal"}) for i in range(samples // 200)]
    return LaunchRecord(
        id=uuid.uuid4().hex,
        case=CaseRecord("tflite-fp16", "tflite", "fp16", "tflite", "xnnpack", 4, ("a" * 64, "b" * 64), 19_000_000),
        device=DeviceRecord("host", "host", {"cores": 2}),
        index=index,
        status="complete",
        started="2026-11-25T16:00:00Z",
        ended="2026-11-25T16:02:00Z",
        samples=tuple(found),
        states=tuple(states),
    )


if __name__ == "__main__":
    main()
