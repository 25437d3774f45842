"""Records the streams under ``streams`` from a simulated device, and damages copies of them.

``python tests/protocol/record_streams.py`` writes them all; a test compares. What is expected of a stream is counted
here, line by line, and not by the reader that is tested against it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from protocol_samples import CONTENTS, a_job, put_all, stored, write_files
from pydantic import BaseModel

from edgesam_mobile.lab.protocol.fields import LARGEST_CHUNK
from edgesam_mobile.lab.protocol.messages import encode
from edgesam_mobile.lab.protocol.requests import Bye, Cancel, Chunk, Fetch, Put
from edgesam_mobile.lab.protocol.session import Session
from edgesam_mobile.lab.simulated import SimulatedDevice

FOLDER = Path(__file__).parent / "streams"
KNOWN = ("hello", "ready", "phase", "sample", "state", "check", "result", "error", "end")
SHORT: dict[str, Any] = {
    "measure": {"seconds": 0.1, "rounds": 2},
    "warm_up": {"rounds": 2, "seconds": 1.0, "window": 1, "tolerance": 1.0},
}
Files = dict[str, bytes]


def recordings() -> Files:
    """Every file of the folder by name, but its ``README.md``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = _kept(folder / "good")
        files: Files = {}
        _add(files, "good-job", good)
        _add(files, "failed-check", _kept(folder / "check", iou=0.5))
        _add(files, "refused-delegate", _kept(folder / "delegate", delegate="abacus"))
        _damaged(files, good)
        _cut_short(files, good)
        _instrumentation(files, good)
        _duplex(files, folder)
    _requests(files)
    return files


def _kept(folder: Path, *, iou: float = 0.999, **changes: Any) -> list[bytes]:
    """The lines that a simulated device keeps of a job."""
    with SimulatedDevice(folder / "device", iou=iou) as device, Session(device.connect) as session:
        put_all(session, folder / "files")
        session.run(a_job(**SHORT, **changes), lambda event: None)
        return device.store.kept("job-1").read_bytes().splitlines(keepends=True)


def _add(
    files: Files, name: str, lines: list[bytes], *, good: int | None = None, code: str | None = None, **more: Any
) -> None:
    """A stream of which the first ``good`` lines are to be given out, and what then is wrong."""
    files[f"{name}.jsonl"] = b"".join(lines)
    expected = {"transport": "one-job", **_expected(lines[:good], code), **more}
    files[f"{name}.expected.json"] = _text(expected)


def _text(expected: dict[str, Any]) -> bytes:
    return (json.dumps(expected, indent=2) + "\n").encode()


def _expected(lines: Iterable[bytes], code: str | None) -> dict[str, Any]:
    events = [json.loads(line) for line in lines]
    types = Counter(event["type"] for event in events)
    jobs: dict[str, str | None] = {event["job"]: None for event in events if event.get("job")}
    jobs |= {event["job"]: event["status"] for event in events if event["type"] == "end"}
    return {
        "ending": "whole" if code is None else "truncated" if code == "truncated" else "damaged",
        "code": code,
        "events": {name: number for name, number in sorted(types.items()) if name in KNOWN},
        "skipped": {name: number for name, number in sorted(types.items()) if name not in KNOWN},
        "jobs": jobs,
    }


def _damaged(files: Files, good: list[bytes]) -> None:
    """Streams with something wrong in the eleventh line."""
    before, line, after = good[:10], good[10], good[11:]

    def add(name: str, code: str, *instead: bytes) -> None:
        _add(files, name, [*before, *instead, *after], good=10, code=code)

    add("gap", "gap")
    add("repeated", "gap", good[9], line)
    add("bad-utf8", "bad-line", line.replace(b'"job":"', b'"job":"\xff', 1))
    add("nan", "bad-line", _with(line, round=0).replace(b'"round":0', b'"round":NaN'))
    add("number-as-text", "bad-line", _with(line, ns="5"))
    add("negative", "bad-line", _with(line, ns=-5))
    add("missing-field", "bad-line", _with(line, at_ns=...))
    add("no-object", "bad-line", b"[1,2]\n")
    add("empty-line", "bad-line", b"\n", line)
    add("oversized", "too-large", _with(line, pad="x" * (1 << 20)))
    _add(files, "reordered", [*before, good[11], line, *good[12:]], good=10, code="gap")
    _add(files, "no-hello", [_with(good[1], seq=0), *good[2:]], good=0, code="no-hello")
    _add(
        files,
        "wrong-version",
        [_with(good[0], protocol="edgesam.harness/2"), *good[1:]],
        good=0,
        code="unknown-version",
    )
    counts = json.loads(good[-1])["counts"]
    end = _with(good[-1], counts={**counts, "sample": counts["sample"] + 1})
    _add(files, "counts", [*good[:-1], end], good=len(good) - 1, code="counts")
    _add(files, "after-end", [*good, _with(line, seq=len(good))], good=len(good), code="bad-line")


def _cut_short(files: Files, good: list[bytes]) -> None:
    """Streams that are shorter or longer than the good one, and right in themselves."""
    _add(files, "truncated", good[:20], code="truncated")
    _add(files, "torn", [*good[:20], good[20][:30]], good=20, code="truncated")
    files["empty.jsonl"] = b""
    files["empty.expected.json"] = (
        json.dumps({"transport": "one-job", **_expected([], "truncated")}, indent=2) + "\n"
    ).encode()
    counts = Counter(json.loads(line)["type"] for line in good[:20])
    end = _with(good[-1], seq=20, status="cancelled", counts=dict(counts))
    _add(files, "cancelled", [*good[:20], end])
    news = [_with(good[0], type="weather", seq=1 + n, job="job-1", sunny=True) for n in range(2)]
    moved = [_with(line, seq=n + 3, more={"a": [1, None]}) for n, line in enumerate(good[1:-1])]
    total = Counter(json.loads(line)["type"] for line in [good[0], *news, *moved])
    end = _with(good[-1], seq=len(moved) + 3, counts=dict(total))
    _add(files, "unknown", [_with(good[0], more="x"), *news, *moved, end])


def _with(line: bytes, **fields: Any) -> bytes:
    """A line with other fields; ``...`` takes one away."""
    content = json.loads(line) | fields
    return (
        json.dumps({key: value for key, value in content.items() if value is not ...}, separators=(",", ":")).encode()
        + b"\n"
    )


def _instrumentation(files: Files, good: list[bytes]) -> None:
    """The same events as Android's ``am instrument -r`` prints them."""
    status = [b"INSTRUMENTATION_STATUS: event=" + line + b"INSTRUMENTATION_STATUS_CODE: 0\n" for line in good]
    crash = b"INSTRUMENTATION_RESULT: shortMsg=Process crashed.\nINSTRUMENTATION_CODE: 0\n"
    noise = b"INSTRUMENTATION_STATUS: stack=java.lang.Error: x\n\tat a.b(C.java:1)\n\n\xff{}\n"
    bad = status[10].replace(b'"seq":', b'"seq":,', 1)
    last = b"INSTRUMENTATION_RESULT: ok=true\nINSTRUMENTATION_CODE: -1\n"
    for name, lines, events, code in (
        ("instrumentation-good", [*status, last], good, None),
        ("instrumentation-windows", [line.replace(b"\n", b"\r\n") for line in status], good, None),
        ("instrumentation-noise", [noise, *status[:5], noise, *status[5:], last], good, None),
        ("instrumentation-crash", [*status[:20], crash], good[:20], "truncated"),
        ("instrumentation-damaged", [*status[:10], bad, *status[11:]], good[:10], "bad-line"),
    ):
        files[f"{name}.txt"] = b"".join(lines)
        expected = {"transport": "instrumentation", **_expected(events, code)}
        files[f"{name}.expected.json"] = _text(expected)


def _duplex(files: Files, folder: Path) -> None:
    """Everything that a device sends in a session, and what it says to a second desktop."""
    write_files(folder / "files")
    with (
        SimulatedDevice(folder / "duplex", capacity=800_000) as device,
        device.connect() as connection,
        connection.makefile("rb") as answers,
    ):
        lines = [answers.readline()]
        for request, last in _conversation():
            connection.sendall(encode(request))
            came = None
            while came != last:
                lines.append(answers.readline())
                came = json.loads(lines[-1])["type"]
        with device.connect() as second, second.makefile("rb") as refused:
            busy = [refused.readline()]
        connection.sendall(encode(Bye()))
    _add(files, "duplex-session", lines, transport="duplex")
    _add(files, "duplex-busy", busy, transport="duplex")
    _add(files, "duplex-lost-job", lines[:-5], transport="duplex", code="truncated")
    gap = next(n for n, line in enumerate(lines) if b'"stage":"decode"' in line)
    _add(files, "duplex-gap", lines[:gap] + lines[gap + 1 :], good=gap, transport="duplex", code="gap")


def _conversation() -> Iterator[tuple[BaseModel, str | None]]:
    """What is asked, and the type of the last event of the answer; ``None`` where there is none."""
    for name, content in CONTENTS.items():
        digest = hashlib.sha256(content).hexdigest()
        yield Put(path=stored(name), bytes=len(content), sha256=digest), "ready"
        for start in range(0, len(content), LARGEST_CHUNK):
            data = base64.b64encode(content[start : start + LARGEST_CHUNK])
            whole = start + LARGEST_CHUNK >= len(content)
            yield Chunk(path=stored(name), offset=start, data=data), "ready" if whole else None
        yield Put(path=stored(name), bytes=len(content), sha256=digest), "ready"
    yield Put(path=f"models/{'0' * 64}/large", bytes=1_000_000, sha256="0" * 64), "error"
    yield a_job("job-1", **SHORT), "end"
    yield Cancel(job="job-1"), "error"
    yield Fetch(job="job-0", from_seq=0), "error"
    yield a_job("job-2", **SHORT), "end"


def _requests(files: Files) -> None:
    """Lines that a harness may be sent, and the error code of each; ``null`` where it is accepted."""
    put = encode(Put(path=stored("encoder"), bytes=330_000, sha256="a" * 64))
    job = encode(a_job())
    models = f"models/{'a' * 64}"
    paths = (
        "../x",
        "/x",
        "models/../x",
        "models/x",
        "jobs/job-1.jsonl",
        models,
        f"{models}/x.part",
        f"{models}/.x",
        f"{models}/a\\b",
    )
    lines: list[tuple[bytes, str | None]] = [
        (put, None),
        (_with(put, protocol=...), None),
        (_with(put, more=[1]), None),
        (encode(Chunk(path=stored("encoder"), offset=0, data=base64.b64encode(b"abc"))), None),
        (job, None),
        (encode(Cancel(job="job-1")), None),
        (encode(Fetch(job="job-1", from_seq=3)), None),
        (encode(Bye()), None),
        (_with(put, protocol="edgesam.harness/2"), "unknown-version"),
        (_with(put, type="dance"), "unknown-type"),
        (_with(put, type=...), "bad-line"),
        (_with(put, bytes="5"), "bad-line"),
        (_with(put, bytes=-1), "bad-line"),
        (_with(put, bytes=(2 << 30) + 1), "too-large"),
        (_with(put, sha256="A" * 64), "bad-line"),
        *((_with(put, path=path), "bad-path") for path in paths),
        (_with(put, path=f"{models}/{'b' * 200}"), "bad-path"),
        (_with(job, job="Job 1"), "bad-line"),
        (_with(job, least_iou=1.5), "bad-line"),
        (_with(job, encoder=...), "bad-line"),
        (_with(job, golden=json.loads(job)["golden"] * 65), "too-large"),
        (_with(job, frame={**json.loads(job)["frame"], "labels": [1, 1]}), "bad-line"),
        (b"{\n", "bad-line"),
        (b"[]\n", "bad-line"),
    ]
    files["requests.jsonl"] = b"".join(line for line, _ in lines)
    expected = {"transport": "requests", "codes": [code for _, code in lines]}
    files["requests.expected.json"] = _text(expected)


def main() -> None:
    """Write them all, and nothing else into that folder."""
    FOLDER.mkdir(exist_ok=True)
    for name, content in recordings().items():
        (FOLDER / name).write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
