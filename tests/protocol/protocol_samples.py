"""Jobs, files and every kind of message, for the tests of the protocol."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel

from edgesam_mobile.lab.protocol import events, fields, requests
from edgesam_mobile.lab.protocol.launch import LaunchEvents
from edgesam_mobile.lab.protocol.link import Patience
from edgesam_mobile.lab.protocol.requests import Job
from edgesam_mobile.lab.protocol.session import Session
from edgesam_mobile.lab.records import CaseRecord, DeviceRecord

CASE = CaseRecord("simulated", "simulated", "fp32", "simulated", "cpu")
DEVICE = DeviceRecord("simulated", "simulated")
QUICK = Patience(idle=5.0, job=4.0, reconnect=10.0, cancel=4.0)
CONTENTS = {
    "encoder": b"an encoder " * 30_000,
    "decoder": b"a decoder",
    "picture": b"P6 1 1 255 abc",
    "mask": b"P4 1 1 \x80",
}


def stored(name: str) -> str:
    """Where a file of ``CONTENTS`` belongs on a device."""
    folder = "models" if "coder" in name else "inputs"
    return f"{folder}/{hashlib.sha256(CONTENTS[name]).hexdigest()}/{name}"


def write_files(folder: Path) -> dict[str, Path]:
    """The files of ``CONTENTS``, by the paths that they have on a device."""
    folder.mkdir(exist_ok=True)
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    return {stored(name): folder / name for name in CONTENTS}


def put_all(session: Session, folder: Path) -> None:
    """Write the files of ``CONTENTS`` and send them."""
    for path, source in write_files(folder).items():
        session.put(source, path)


def a_job(job: str = "job-1", **changes: Any) -> Job:
    """A job on the files of ``CONTENTS``."""
    tensor = {"name": "x", "shape": [1, 2], "dtype": "float32", "layout": "NC", "meaning": "numbers"}
    graph = {"inputs": [tensor], "outputs": [tensor]}
    prompted = {"image": stored("picture"), "points": [[0.0, 0.5]], "labels": [1]}
    content: dict[str, Any] = {
        "job": job,
        "label": "simulated, launch 1 of 1",
        "format": "simulated",
        "delegate": "cpu",
        "threads": 2,
        "encoder": {
            "path": stored("encoder"),
            "sha256": hashlib.sha256(CONTENTS["encoder"]).hexdigest(),
            **graph,
        },
        "decoder": {
            "path": stored("decoder"),
            "sha256": hashlib.sha256(CONTENTS["decoder"]).hexdigest(),
            **graph,
        },
        "picture": {"size": 1024, "pad_rgb": [123.7, 116.3, 103.5]},
        "prompt": {"slots": 6, "prompts_per_call": 1, "mask_input": False},
        "mask": {"low_resolution": 256, "threshold": 0.0, "score": "iou", "point_masks": 4},
        "frame": prompted,
        "golden": [{**prompted, "mask": stored("mask"), "best": 2}],
        "least_iou": 0.95,
        "warm_up": {"rounds": 6, "seconds": 10.0, "window": 2, "tolerance": 0.1},
        "measure": {"seconds": 0.2, "rounds": 5},
        "state_every": 0.1,
        "seed": 7,
    }
    return Job.model_validate_json(json.dumps(content | changes))


def a_launch(job: Job) -> LaunchEvents:
    """What gathers a job's events."""
    return LaunchEvents(job.job, CASE, DEVICE, 0)


WHOLE = st.integers(0, 2**63 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SHARE = st.floats(0, 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
WORD = st.from_regex(r"[a-z][a-z0-9-]{0,39}", fullmatch=True)
JOB = st.from_regex(r"[a-z0-9-]{1,64}", fullmatch=True)
HASH = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
PATH = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,9}(/[A-Za-z0-9_][A-Za-z0-9._+-]{0,9}){0,3}", fullmatch=True)
STORED = st.builds("{}/{}/{}".format, st.sampled_from(["models", "inputs"]), HASH, PATH)
POSITIVE = st.integers(1, 2**63 - 1)
SIZE = st.integers(0, fields.LARGEST_FILE)
SECONDS = st.floats(0, fields.LONGEST_JOB)
THERMAL = st.sampled_from(["nominal", "fair", "serious", "critical"])
DELEGATE = st.none() | WORD


def _made(kind: type[BaseModel], **parts: Any) -> st.SearchStrategy[Any]:
    return st.builds(kind, **parts)


def _message(kind: type[BaseModel], **parts: Any) -> tuple[type[BaseModel], st.SearchStrategy[Any]]:
    return kind, _made(kind, **parts)


def _by_kind(*kinds: tuple[type[BaseModel], st.SearchStrategy[Any]]) -> dict[str, st.SearchStrategy[Any]]:
    return {kind.model_fields["type"].default: strategy for kind, strategy in kinds}


def _some(parts: st.SearchStrategy[Any], least: int = 0, most: int = 3) -> st.SearchStrategy[Any]:
    return st.lists(parts, min_size=least, max_size=most).map(tuple)


_DEVICE = _made(
    fields.Device,
    id=st.none() | TEXT,
    class_=st.sampled_from(["android", "ios", "emulator", "host", "simulated"]),
    cores=st.none() | POSITIVE,
    soc=st.none() | TEXT,
)
_HARNESS = _made(
    fields.Harness, name=TEXT, version=TEXT, build=st.sampled_from(["release", "debug"]), debugger=st.booleans()
)
_RUNTIME = _made(fields.Runtime, name=TEXT, version=TEXT, formats=_some(TEXT), delegates=_some(TEXT))
EVENTS = _by_kind(
    _message(
        events.Hello, seq=WHOLE, job=st.none() | JOB, harness=_HARNESS, device=_DEVICE, runtimes=_some(_RUNTIME)
    ),
    _message(events.Ready, seq=WHOLE, path=PATH, offset=SIZE, complete=st.booleans()),
    _message(
        events.Phase,
        seq=WHOLE,
        job=JOB,
        name=st.sampled_from(["gate", "check", "load", "first", "warm-up", "measure"]),
        at_ns=WHOLE,
    ),
    _message(
        events.Sample, seq=WHOLE, job=JOB, stage=WORD, round=WHOLE, ns=WHOLE, at_ns=WHOLE, cpu_ns=st.none() | WHOLE
    ),
    _message(
        events.State,
        seq=WHOLE,
        job=JOB,
        at_ns=WHOLE,
        thermal=st.none() | THERMAL,
        headroom=st.none() | FINITE,
        battery=st.none()
        | _made(fields.Battery, level=SHARE, charging=st.none() | st.booleans(), celsius=st.none() | FINITE),
        low_power=st.none() | st.booleans(),
        clocks_khz=st.none() | _some(st.none() | WHOLE),
        memory=st.none() | _made(fields.Memory, bytes=WHOLE, peak_bytes=st.none() | WHOLE),
    ),
    _message(
        events.Check,
        seq=WHOLE,
        job=JOB,
        masks=_some(_made(fields.MaskCheck, iou=SHARE, best_same=st.booleans())),
        least_iou=SHARE,
        passed=st.booleans(),
    ),
    _message(
        events.Result,
        seq=WHOLE,
        job=JOB,
        requested=DELEGATE,
        applied=DELEGATE,
        threads=st.none() | WHOLE,
        warm_up=_made(fields.WarmedUp, rounds=WHOLE, stable=st.booleans()),
        rounds=WHOLE,
        note=st.none() | TEXT,
    ),
    _message(events.Error, seq=WHOLE, job=st.none() | JOB, code=WORD, message=TEXT, hint=st.none() | TEXT),
    _message(
        events.End,
        seq=WHOLE,
        job=JOB,
        status=st.sampled_from(["complete", "failed", "cancelled"]),
        counts=st.dictionaries(WORD, WHOLE, max_size=4),
    ),
)

_TENSOR = _made(
    requests.Tensor,
    name=TEXT,
    shape=_some(POSITIVE),
    dtype=st.sampled_from(["float32", "float16", "uint8", "image"]),
    layout=TEXT,
    meaning=TEXT,
)
_GRAPH = _made(requests.GraphFile, path=PATH, sha256=HASH, inputs=_some(_TENSOR, 1, 2), outputs=_some(_TENSOR, 1, 2))
_POINTS = st.lists(st.tuples(st.tuples(FINITE, FINITE), st.sampled_from([-1, 0, 1, 2, 3])), min_size=1, max_size=3)


def _prompted(kind: type[BaseModel], **parts: Any) -> st.SearchStrategy[Any]:
    def made(image: str, points: list[Any], others: dict[str, Any]) -> BaseModel:
        return kind(image=image, points=tuple(p for p, _ in points), labels=tuple(n for _, n in points), **others)

    return st.builds(made, PATH, _POINTS, st.fixed_dictionaries(parts))


JOBS = _made(
    requests.Job,
    job=JOB,
    label=TEXT,
    format=WORD,
    runtime=DELEGATE,
    delegate=DELEGATE,
    threads=st.none() | POSITIVE,
    encoder=_GRAPH,
    decoder=_GRAPH,
    picture=_made(requests.JobPicture, size=POSITIVE, pad_rgb=st.tuples(FINITE, FINITE, FINITE)),
    prompt=_made(requests.JobPrompt, slots=POSITIVE, prompts_per_call=POSITIVE, mask_input=st.booleans()),
    mask=_made(
        requests.JobMask,
        low_resolution=POSITIVE,
        threshold=FINITE,
        score=st.sampled_from(["iou", "stability"]),
        point_masks=st.sampled_from([3, 4]),
    ),
    frame=_prompted(requests.Prompted),
    golden=_some(_prompted(requests.Golden, mask=PATH, best=st.integers(0, 3)), 0, 2),
    least_iou=SHARE,
    warm_up=_made(requests.WarmUp, rounds=WHOLE, seconds=SECONDS, window=POSITIVE, tolerance=st.floats(0, 1)),
    measure=_made(requests.Measure, seconds=SECONDS, rounds=POSITIVE),
    state_every=st.floats(0.01, 60),
    thermal_gate=st.none()
    | _made(requests.ThermalGate, thermal=st.none() | THERMAL, battery_c=st.none() | FINITE, wait=SECONDS),
    seed=WHOLE,
)
REQUESTS = _by_kind(
    _message(requests.Put, path=STORED, bytes=SIZE, sha256=HASH),
    _message(requests.Chunk, path=STORED, offset=SIZE, data=st.binary(max_size=64).map(base64.b64encode)),
    (requests.Job, JOBS),
    _message(requests.Cancel, job=JOB),
    _message(requests.Fetch, job=JOB, from_seq=WHOLE),
    _message(requests.Bye),
)
