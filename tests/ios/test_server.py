"""The Swift harness's server against this project's own desktop: all is real but the runtime, which is made up."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgesam_mobile.errors import DeviceError, EnvironmentMissing
from edgesam_mobile.files import sha256_of
from edgesam_mobile.lab.links import DuplexLink
from edgesam_mobile.lab.protocol.events import Event, Phase, Sample
from edgesam_mobile.lab.protocol.launch import measure
from edgesam_mobile.lab.protocol.messages import encode
from edgesam_mobile.lab.protocol.requests import Job
from edgesam_mobile.lab.protocol.session import Session
from edgesam_mobile.lab.records import LaunchRecord
from tests.android.conftest import tools_or_skip
from tests.protocol.protocol_samples import CONTENTS, QUICK, REQUESTS, a_job, a_launch, put_all, stored, write_files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # where the compiler's root is not there yet

SOURCES = Path(__file__).parents[2] / "ios_harness"
SWIFT = SOURCES / "tools" / "swift.sh"
BUILD = SOURCES / "build" / "made-up"
REQUEST_LINES = (Path(__file__).parents[1] / "protocol/streams/requests.jsonl").read_bytes().splitlines()
# What the desktop's own decoders are tried with.
DRAWN_LINES = st.one_of(*REQUESTS.values()).map(lambda request: encode(request).rstrip(b"\n"))
ENCODER = stored("encoder")
TMPFS = 'mount -t tmpfs -o size=256k none "$1" && shift && exec "$@"'


@pytest.fixture(scope="module")
def program() -> list[str]:
    """What starts the harness with the made-up runtime."""
    build = ["build", "-c", "release", "--product", "harness-made-up", "--scratch-path", str(BUILD), "-j", "2"]
    with tools_or_skip():
        done = subprocess.run([str(SWIFT), *build], cwd=SOURCES, capture_output=True, text=True)
        if done.returncode == 5:
            raise EnvironmentMissing(done.stderr.strip(), hint="run `make tools`")
    assert done.returncode == 0, done.stdout
    return [str(SWIFT), "--run", str(BUILD / "release" / "harness-made-up")]


class Life:
    """A harness that can be killed; whoever connects afterwards finds it started again, on the same folder."""

    def __init__(self, program: list[str], folder: Path, *options: str) -> None:
        self.folder = folder
        self._command = [*program, "--folder", str(folder), *options]
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def connect(self) -> socket.socket:
        """A new connection."""
        if self._process is None:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self._process.stdout is not None
            self._port = json.loads(self._process.stdout.readline())["port"]
        return socket.create_connection(("127.0.0.1", self._port), timeout=5)

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        assert self._process is not None
        with self._process as process:
            process.kill()
        self._process = None

    def end(self) -> None:
        """End it as it ends by itself, with whoever started it."""
        if self._process is not None:
            with self._process as process:
                assert process.stdin is not None
                process.stdin.close()
                assert process.wait(10) == 0

    def kept(self, job: str) -> list[bytes]:
        """The lines that it keeps of a job; an empty one where it has none yet."""
        path = self.folder / "jobs" / f"{job}.jsonl"
        return (path.read_bytes().splitlines() if path.exists() else []) or [b""]


Start = Callable[..., Life]


@pytest.fixture
def start(program: list[str], tmp_path: Path) -> Iterator[Start]:
    """Starts a harness with options."""
    lives: list[Life] = []

    def start(*options: str, before: tuple[str, ...] = ()) -> Life:
        lives.append(Life([*before, *program], tmp_path / "harness", *options))
        return lives[-1]

    yield start
    for life in lives:
        life.end()


@pytest.fixture
def harness(start: Start) -> Life:
    return start()


class Wire:
    """A connection that breaks once so many bytes were sent, or once something was received."""

    def __init__(self, connection: socket.socket, *, sent: int = 1 << 40, received: bytes = b"\0") -> None:
        self._connection, self._left, self._received = connection, sent, received
        self._seen = b""
        self.settimeout, self.close = connection.settimeout, connection.close

    def sendall(self, data: bytes) -> None:
        self._connection.sendall(data[: self._left])
        self._left -= len(data)
        if self._left < 0:
            self._connection.shutdown(socket.SHUT_RDWR)
            raise BrokenPipeError(32, "Broken pipe")

    def recv(self, size: int) -> bytes:
        data = self._connection.recv(size)
        self._seen = self._seen[-100:] + data
        if self._received in self._seen:
            self._connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError(104, "Connection reset by peer")
        return data


def tensor(name: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "shape": shape, "dtype": "float32", "layout": "X", "meaning": "m"}


def made_up_job(job: str = "job-1", **changes: Any) -> Job:
    """A job on the files of ``CONTENTS`` whose tensors fit each other."""
    embedding = tensor("image_embeddings", 1, 4)
    encoder = {"inputs": [tensor("image", 1, 3, 16, 16)], "outputs": [embedding]}
    prompts = [tensor("point_coords", 1, 6, 2), tensor("point_labels", 1, 6)]
    decoder = {
        "inputs": [embedding, *prompts],
        "outputs": [tensor("masks", 1, 4, 4, 4), tensor("best_mask", 1, 1, 4, 4)],
    }
    whole = json.loads(encode(a_job(job)))
    fields = {
        "format": "made-up",
        "encoder": whole["encoder"] | encoder,
        "decoder": whole["decoder"] | decoder,
        "picture": {"size": 16, "pad_rgb": [123.7, 116.3, 103.5]},
        "mask": {"low_resolution": 4, "threshold": 0.0, "score": "iou", "point_masks": 4},
        "measure": {"seconds": 0.0, "rounds": 20},
        **changes,
    }
    return Job.model_validate_json(json.dumps(whole | fields))


def run(
    connect: Callable[[], Any], folder: Path, job: Job, on_event: Callable[[Event], None] = lambda event: None
) -> LaunchRecord:
    """Files and a job by the desktop's own link; every event comes once, in order, and none is missing."""
    events: list[Event] = []

    def take(event: Event) -> None:
        events.append(event)
        on_event(event)

    link = DuplexLink("simulated:swift", connect, patience=QUICK)
    link.open()
    try:
        for path, source in write_files(folder).items():
            link.put(source, path, lambda done, of: None)
        record = link.run(job, a_launch(job), take)
    finally:
        link.close()
    assert [event.seq for event in events] == list(range(len(events)))
    return record


@contextmanager
def greeted(harness: Life) -> Iterator[tuple[socket.socket, BinaryIO]]:
    """A connection without a desktop and what comes from it, after ``hello``."""
    while True:
        with harness.connect() as connection, connection.makefile("rb") as answers:
            if json.loads(answers.readline())["type"] == "hello":
                yield connection, answers
                return
        time.sleep(0.05)  # the session before is not over yet


def ask(harness: Life, *lines: bytes) -> list[dict[str, Any]]:
    """Say lines to a harness, then nothing; gives everything that it answers after ``hello``."""
    with greeted(harness) as (connection, answers):
        connection.sendall(b"".join(lines))
        connection.shutdown(socket.SHUT_WR)
        return [json.loads(line) for line in answers]


def test_files_are_sent_once_and_a_job_is_complete(harness: Life, tmp_path: Path) -> None:
    with Session(harness.connect, patience=QUICK) as session:
        put_all(session, tmp_path / "files")
        progress: list[tuple[int, int]] = []
        session.put(tmp_path / "files" / "encoder", ENCODER, on_progress=lambda *p: progress.append(p))
        events: list[Event] = []
        record = measure(session, made_up_job(), a_launch(made_up_job()), on_event=events.append)
    size = len(CONTENTS["encoder"])
    assert progress == [(size, size)]  # there already
    assert sha256_of(harness.folder / ENCODER) == sha256_of(tmp_path / "files" / "encoder")
    assert (record.status, record.error) == ("complete", None)
    assert record.hello["device"]["class"] == "host" and record.hello["harness"]["build"] == "release"
    assert record.check is not None and record.check["masks"] == [{"iou": 1.0, "best_same": True}]
    assert record.result is not None and record.result["threads"] == 2 and record.result["rounds"] == 20
    placed = {"graph": "decoder", "operation": "guess", "device": "cpu", "cost": 1.0}
    assert record.result["placement"] == [placed]
    assert len(record.times("frame")) == 20 and len(record.times("kernel")) == 2
    assert len(harness.kept("job-1")) == len(events)
    assert not list(harness.folder.rglob("*.part"))


@pytest.mark.parametrize("how", ["cable", "kill"])
def test_an_upload_goes_on_where_it_stopped(how: str, harness: Life, tmp_path: Path) -> None:
    # Behind the first chunk, which is a third longer as text.
    cuts = [400_000] if how == "cable" else []
    part, progress = harness.folder / f"{ENCODER}.part", []

    def on_progress(done: int, of: int) -> None:
        progress.append(done)
        if how == "kill" and progress == [0, 256 << 10]:
            while not part.exists() or part.stat().st_size < done:
                time.sleep(0.01)
            harness.kill()

    source = write_files(tmp_path / "files")[ENCODER]
    with Session(lambda: Wire(harness.connect(), sent=cuts.pop() if cuts else 1 << 40), patience=QUICK) as session:
        session.put(source, ENCODER, on_progress=on_progress)
    assert not cuts
    assert progress.count(0) == 1 and progress.count(256 << 10) == 2  # found there, not sent again
    assert sha256_of(harness.folder / ENCODER) == sha256_of(source)


@pytest.mark.parametrize(
    "at",
    [
        b'"type":"phase","seq":1,',
        b'"type":"check"',
        b'"name":"load"',
        b'"load-cold"',
        b'"first-post"',
        b'"warm-frame"',
        b'"stage":"frame","round":7',
        b'"type":"result"',
        b'"type":"end"',
    ],
)
def test_a_cable_that_drops_at_any_phase_loses_nothing(at: bytes, start: Start, tmp_path: Path) -> None:
    cuts, harness = [at], start("--pace", "0.005")
    record = run(
        lambda: Wire(harness.connect(), received=cuts.pop() if cuts else b"\0"), tmp_path / "files", made_up_job()
    )
    assert not cuts
    assert (record.status, record.error) == ("complete", None)
    assert len(record.times("frame")) == 20


def test_a_job_outlives_its_session_and_nobody_else_gets_its_events(start: Start, tmp_path: Path) -> None:
    harness = start("--pace", "0.02")
    with Session(harness.connect, patience=QUICK) as session:
        put_all(session, tmp_path / "files")
    with greeted(harness) as (connection, answers):
        connection.sendall(encode(made_up_job()))
        answers.readline()
    events: list[Event] = []
    with Session(harness.connect, patience=QUICK) as session:
        put_all(session, tmp_path / "files")  # and no event of the job comes between
        assert session.fetch("job-1", events.append).status == "complete"
    assert len(events) == len(harness.kept("job-1"))


@pytest.mark.parametrize("phase", ["check", "load", "warm-up", "measure"])
def test_a_killed_harness_leaves_a_truncated_launch_and_serves_on(phase: str, start: Start, tmp_path: Path) -> None:
    harness = start("--pace", "0.005")

    def on_event(event: Event) -> None:
        if isinstance(event, Phase) and event.name == phase:
            harness.kill()

    record = run(harness.connect, tmp_path / "files", made_up_job(), on_event)
    assert record.status == "truncated"
    assert "the harness was killed, or the device restarted" in str(record.error)
    kept = [json.loads(line) for line in harness.kept("job-1") if line.endswith(b"}")]
    assert len(record.samples) == sum(event["type"] == "sample" for event in kept)
    assert run(harness.connect, tmp_path / "files", made_up_job("job-2")).status == "complete"


def test_a_slow_reader_never_holds_up_what_is_measured(harness: Life, tmp_path: Path) -> None:
    with Session(harness.connect, patience=QUICK) as session:
        put_all(session, tmp_path / "files")
    with greeted(harness) as (connection, answers):
        connection.settimeout(20)
        connection.sendall(encode(made_up_job(measure={"seconds": 0.0, "rounds": 40_000})))
        deadline = time.monotonic() + 60
        kept = harness.kept("job-1")
        while b'"type":"end"' not in kept[-1] and time.monotonic() < deadline:
            time.sleep(0.2)
            kept = harness.kept("job-1")
        assert json.loads(kept[-1])["status"] == "complete"  # though nothing was read of 200,000 events
        assert sum(map(len, kept)) > 16 << 20  # more than sockets hold
        assert [answers.readline().rstrip() for _ in kept] == kept


def test_a_second_desktop_is_told_that_the_harness_is_busy(harness: Life, tmp_path: Path) -> None:
    with Session(harness.connect, patience=QUICK) as first:
        with pytest.raises(DeviceError, match="another session is running") as told:
            Session(harness.connect, patience=replace(QUICK, busy=0.3)).__enter__()
        assert told.value.hint == "wait until it is over"
        put_all(first, tmp_path / "files")
        assert measure(first, made_up_job(), a_launch(made_up_job())).status == "complete"


@pytest.mark.parametrize(
    ("line", "code", "closes"),
    [
        (b"not json\n", "bad-line", True),
        (b'{"type":"fetch"}\n', "bad-line", True),
        (b'{"type":"bye","pad":"' + b"x" * (1 << 20) + b'"}\n', "too-large", True),
        (b"x" * (3 << 20), "too-large", True),
        (b'{"type":"bye","protocol":"edgesam.harness/2"}\n', "unknown-version", True),
        (b'{"type":"dance"}\n', "unknown-type", False),
        (b'{"type":"fetch","job":"no-such-job","from":0}\n', "not-found", False),
        (b'{"type":"cancel","job":"no-such-job"}\n', "not-found", False),
    ],
)
def test_a_bad_request_is_answered_and_closes_the_session_or_not(
    line: bytes, code: str, closes: bool, harness: Life
) -> None:
    answers = ask(harness, line, b'{"type":"dance"}\n')
    assert [answer["code"] for answer in answers] == ([code] if closes else [code, "unknown-type"])
    assert [answer["code"] for answer in ask(harness, b'{"type":"dance"}\n')] == ["unknown-type"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"delegate": "abacus"}, "no-delegate: made-up has cpu here, not abacus"),
        ({"format": "tflite"}, "no-runtime: no runtime here executes tflite"),
        ({"prompt": {"slots": 5, "prompts_per_call": 1, "mask_input": False}}, "bad-line: "),
    ],
)
def test_a_job_that_fails_says_why(changes: dict[str, Any], told: str, harness: Life, tmp_path: Path) -> None:
    record = run(harness.connect, tmp_path / "files", made_up_job(**changes))
    assert record.status == "failed" and str(record.error).startswith(told)
    again = run(harness.connect, tmp_path / "files", made_up_job(**changes))
    assert "was used before" in str(again.error)


def test_an_interrupt_cancels_the_job_and_keeps_what_was_measured(start: Start, tmp_path: Path) -> None:
    harness, seen = start("--pace", "0.002"), 0

    def on_event(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, Sample)
        if seen == 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(harness.connect, tmp_path / "files", made_up_job(measure={"seconds": 1e4, "rounds": 10**6}), on_event)
    assert json.loads(harness.kept("job-1")[-1])["status"] == "cancelled"
    assert run(harness.connect, tmp_path / "files", made_up_job("job-2")).status == "complete"


def test_a_package_that_is_a_folder_is_sent_checked_and_removed_where_it_is_damaged(
    harness: Life, tmp_path: Path
) -> None:
    package = tmp_path / "model.mlpackage"
    (package / "Data" / "com.apple.CoreML" / "weights").mkdir(parents=True)
    (package / "Data.txt").write_text("sorted before the folder as text, after it by its parts")
    (package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin").write_bytes(bytes(1000))
    (package / "Data" / "com.apple.CoreML" / "empty").touch()
    digest = sha256_of(package)
    place = f"models/{digest}/model.mlpackage"

    def job(number: int) -> Job:
        whole = json.loads(encode(made_up_job(f"job-{number}")))
        return made_up_job(f"job-{number}", encoder=whole["encoder"] | {"path": place, "sha256": digest})

    with Session(harness.connect, patience=QUICK) as session:
        put_all(session, tmp_path / "files")
        session.put(package, place)
        assert measure(session, job(1), a_launch(job(1))).status == "complete"
        (harness.folder / place / "Data.txt").write_text("something else")
        assert str(measure(session, job(2), a_launch(job(2))).error).startswith("hash-mismatch: ")
        assert not (harness.folder / place).exists()
        session.put(package, place)
        assert measure(session, job(3), a_launch(job(3))).status == "complete"


def test_full_storage_is_told_with_what_to_do(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "harness"
    folder.mkdir()
    mounting = ("unshare", "--mount", "sh", "-c", TMPFS, "_", str(folder))
    if not shutil.which("unshare") or subprocess.run([*mounting, "true"], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    harness = start(before=mounting)
    files = write_files(tmp_path / "files")
    with Session(harness.connect, patience=QUICK) as session:
        with pytest.raises(DeviceError, match="no-space") as told:
            session.put(files[ENCODER], ENCODER)
        assert "free some storage" in str(told.value.hint)
        small = tmp_path / "small"
        small.write_bytes(b"a small encoder")
        digest = hashlib.sha256(small.read_bytes()).hexdigest()
        session.put(small, f"models/{digest}/encoder")
        for name in ("decoder", "picture", "mask"):
            session.put(files[stored(name)], stored(name))
        encoder = json.loads(encode(made_up_job()))["encoder"] | {
            "path": f"models/{digest}/encoder",
            "sha256": digest,
        }
        job = made_up_job(encoder=encoder, measure={"seconds": 1e4, "rounds": 10**6})
        record = measure(session, job, a_launch(job))  # its events fill what is left
    assert record.status == "truncated" and len(record.samples) > 100
    assert os.strerror(28) in str(record.error)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.binary(max_size=80) | st.sampled_from(REQUEST_LINES) | DRAWN_LINES, max_size=6),
    st.randoms(use_true_random=False),
)
def test_whatever_a_harness_is_told_it_goes_on(harness: Life, lines: list[bytes], chance: random.Random) -> None:
    said = bytearray(b"\n".join(lines))
    for _ in range(chance.randrange(3)):
        if said:
            said[chance.randrange(len(said))] = chance.randrange(256)
    ask(harness, bytes(said))
    with Session(harness.connect, patience=QUICK) as session:
        assert session.hello is not None
    stray = [p for p in harness.folder.iterdir() if p.name not in ("jobs", "models", "inputs", "cache")]
    assert stray == []
