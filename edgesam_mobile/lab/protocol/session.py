"""The desktop's side of a duplex session: files, jobs, and what to do when the cable drops."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from edgesam_mobile.errors import DeviceError, PackageError, UsageError
from edgesam_mobile.files import sha256_of
from edgesam_mobile.lab.protocol.events import Error, Event, Hello, Ready
from edgesam_mobile.lab.protocol.fields import LARGEST_CHUNK, LARGEST_FILE
from edgesam_mobile.lab.protocol.following import Following, OnEvent
from edgesam_mobile.lab.protocol.link import FRUITLESS, HINTS, Connection, Link, LinkLost, Patience, Refusal, reason
from edgesam_mobile.lab.protocol.messages import plain
from edgesam_mobile.lab.protocol.requests import Bye, Cancel, Chunk, Job, Put
from edgesam_mobile.lab.protocol.stream import Ending, Sequence

_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds between attempts to connect, doubled each time
_LAST_WISH = 1.0  # seconds to send it
_HASHED = 50e6  # bytes a second that a slow phone hashes


class Session:
    """A conversation with one device, over as many connections as it takes. Use it as a context.

    Args:
        connect: makes a new connection; raises ``OSError`` while the device is not there.

    Attributes:
        hello: what the device said last of itself.

    Raises:
        DeviceError: on entering: not there, busy, of another version, or silent.
    """

    def __init__(self, connect: Callable[[], Connection], *, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self.hello: Hello | None = None
        self._connect = connect
        self._link: Link | None = None

    def __enter__(self) -> Session:
        self.link()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._link is not None and error is None:
            with suppress(LinkLost):  # it may have left before us
                self._link.send(Bye(), self.patience.idle)
        self.drop()

    def put(
        self,
        source: Path,
        path: str,
        *,
        on_progress: Callable[[int, int], None] = lambda done, of: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Send a file, or a folder file by file, unless it is there; goes on where an earlier attempt stopped.

        Args:
            path: where it belongs in the harness's folder: below ``models/SHA256/`` or ``inputs/SHA256/``.
            on_progress: called with bytes sent and bytes altogether, of each file.
            stop: asked between two pieces, and while the device is away: whether to raise ``KeyboardInterrupt``.

        Raises:
            DeviceError: the device refuses (no space, damaged twice) or is lost for longer than ``reconnect``.
            UsageError: too large for the protocol, or the path is none that a device may have.
            PackageError: the file vanished or changed meanwhile.
        """
        if source.is_dir():
            for member in sorted(p for p in source.rglob("*") if p.is_file()):
                inside = f"{path}/{member.relative_to(source).as_posix()}"
                self.put(member, inside, on_progress=on_progress, stop=stop)
            return

        def progress(done: int, of: int) -> None:
            if stop():
                raise KeyboardInterrupt
            on_progress(done, of)

        upload = _Upload(source, path, progress)
        damaged = fruitless = 0
        while True:
            there = upload.there
            try:
                error = upload.attempt(self.link(), self.patience.idle)
            except LinkLost as lost:
                self.drop()
                fruitless = fruitless + 1 if upload.there == there else 0
                if fruitless >= FRUITLESS:
                    raise
                try:
                    self.open_again(lost, self.patience.reconnect, stop=stop)
                except DeviceError:
                    if stop():
                        raise KeyboardInterrupt from None
                    raise
                continue
            except BaseException:
                self.drop()  # a line may be torn
                raise
            if error is None:
                return
            damaged += 1
            if error.code != "hash-mismatch" or damaged > 1:
                raise Refusal(error)

    def run(self, job: Job, on_event: OnEvent, *, stop: Callable[[], bool] = lambda: False) -> Ending:
        """Run a job to its end; every event of its stream is given to ``on_event`` once and in order.

        As soon as ``stop`` says so, the job is cancelled as by Ctrl-C.

        A lost connection is made anew and the missing events are fetched. What becomes of a job that had begun is an
        ending, not an error: ``truncated`` where the device did not come back or has lost the job, ``damaged`` where
        what it keeps is.

        Raises:
            DeviceError: the device refuses the job, or was lost before anything came.
            KeyboardInterrupt: after the device was asked to cancel and its last events were taken.
        """
        return Following(self, job.job, Sequence(job=job.job), on_event, job, stop).to_the_end()

    def fetch(self, job: str, on_event: OnEvent, *, sequence: Sequence | None = None) -> Ending:
        """What the device keeps of an earlier job, and what is still to come of it; otherwise as :meth:`run`.

        Args:
            sequence: what was seen of it before, which is not given again.

        Raises:
            DeviceError: the device knows no such job, or was lost before anything came.
        """
        return Following(self, job, sequence or Sequence(job=job), on_event, None).to_the_end()

    def link(self) -> Link:
        """The connection, made where there is none.

        Raises:
            LinkLost: the device is not there, silent, or what it says is damaged.
            Refusal: it is busy.
            DeviceError: it is of another version, or another one than before.
        """
        deadline = time.monotonic() + self.patience.busy
        while self._link is None:
            try:
                self._link = self._open()
            except Refusal as error:
                # A harness may not have noticed yet that the session before is over.
                if error.code != "busy" or time.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE)
        return self._link

    def open_again(self, lost: LinkLost, within: float, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Connect anew, trying for so many seconds: a device may restart, or still hold the old session.

        Args:
            stop: asked before each further attempt whether to give up at once.

        Raises:
            DeviceError: it did not come back, or is another one or of another version.
        """
        deadline, pause = time.monotonic() + within, _PAUSE
        while True:
            try:
                self.link()
                return
            except LinkLost as error:
                last = error.message
            except Refusal as error:
                if error.code != "busy":
                    raise
                last = error.message
            left = deadline - time.monotonic()
            if left <= 0 or stop():
                raise DeviceError(
                    f"{lost.message}, and the device did not come back within {within:.3g} s ({last})", hint=lost.hint
                )
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def drop(self, *, cancelling: str | None = None) -> None:
        """Hang up, if possible after asking for an end of a job; the next request connects anew."""
        link, self._link = self._link, None
        if link is not None:
            try:
                if cancelling is not None:
                    link.send(Cancel(job=cancelling), _LAST_WISH)
            except LinkLost:
                pass  # then it runs on, and ends by itself
            finally:
                link.close()

    def _open(self) -> Link:
        try:
            link = Link(self._connect())
        except OSError as error:
            raise LinkLost(f"no connection to the device: {reason(error)}") from None
        try:
            event = self._greeting(link)
            if isinstance(event, Error):
                raise Refusal(event)
            if not isinstance(event, Hello):
                raise LinkLost("the device does not begin with `hello`")
            self._refuse_another(event)
        except BaseException:
            link.close()
            raise
        self.hello = event
        return link

    def _greeting(self, link: Link) -> Event:
        try:
            event = link.next(self.patience.idle)
        except LinkLost as lost:
            if lost.fault is not None and lost.fault.code == "unknown-version":
                # Trying again would not help, which is what becomes of a lost connection.
                raise DeviceError(
                    f"the harness speaks another version: {lost.fault.message}", hint=HINTS["unknown-version"]
                ) from None
            raise
        assert event is not None  # nothing stops it
        return event

    def _refuse_another(self, hello: Hello) -> None:
        before = None if self.hello is None else self.hello.device.id
        if before is not None and hello.device.id not in (None, before):
            raise DeviceError(
                f"another device answers: {plain(str(hello.device.id))} instead of {plain(before)}",
                hint="connect the device that was there before, and start again",
            )


class _Upload:
    """One file on its way to a device.

    Attributes:
        there: bytes that the device was found to have, at most.
    """

    def __init__(self, source: Path, path: str, on_progress: Callable[[int, int], None]) -> None:
        self.there = -1
        self._source, self._on_progress = source, on_progress
        try:
            size, digest = source.stat().st_size, sha256_of(source)
            if size > LARGEST_FILE:
                raise UsageError(f"{source} is larger than the 2 GiB that a device takes", hint="use a smaller model")
            self._request = Put(path=path, bytes=size, sha256=digest)
        except OSError as error:
            raise PackageError(f"cannot read {source}: {error.strerror}", hint="build the package again") from error
        except ValidationError:
            raise UsageError(
                f"{plain(path)} is no path for a device", hint="give the file a name of letters, digits and . _ + -"
            ) from None

    def attempt(self, link: Link, idle: float) -> Error | None:
        """Send what is missing; gives the device's error if it has one."""
        patience = idle + self._request.bytes / _HASHED
        link.send(self._request, idle)
        answer = self._answer(link, patience)
        if isinstance(answer, Error):
            return answer
        self.there = max(self.there, answer.offset)
        self._on_progress(answer.offset, self._request.bytes)
        if answer.complete:
            return None
        self._send_from(answer.offset, link, idle)
        answer = self._answer(link, patience)
        if isinstance(answer, Error):
            return answer
        if not answer.complete:
            raise LinkLost("the device does not say that the file is complete")
        return None

    def _send_from(self, offset: int, link: Link, idle: float) -> None:
        with self._source.open("rb") as stream:
            stream.seek(offset)
            # Whoever has no space says so at once: the rest is not sent then.
            while offset < self._request.bytes and not link.has_event():
                data = stream.read(min(LARGEST_CHUNK, self._request.bytes - offset))
                if not data:
                    raise PackageError(f"{self._source} became shorter meanwhile", hint="build the package again")
                # As text, which is what the model of the line takes.
                link.send(Chunk(path=self._request.path, offset=offset, data=base64.b64encode(data)), idle)
                offset += len(data)
                self._on_progress(offset, self._request.bytes)

    def _answer(self, link: Link, patience: float) -> Ready | Error:
        while True:
            event = link.next(patience)
            if isinstance(event, Error) or (isinstance(event, Ready) and event.path == self._request.path):
                return event
