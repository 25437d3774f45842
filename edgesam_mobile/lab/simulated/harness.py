"""The harness of a simulated device: a real server of the duplex protocol, on the loopback interface only."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from pydantic import BaseModel

from edgesam_mobile.lab.protocol.events import Error, Hello, Ready
from edgesam_mobile.lab.protocol.fields import LONGEST_LINE, Device, Runtime
from edgesam_mobile.lab.protocol.fields import Harness as HarnessInfo
from edgesam_mobile.lab.protocol.messages import BadMessage, UnknownRequest, decode_request, encode
from edgesam_mobile.lab.protocol.requests import Bye, Cancel, Chunk, Fetch, Job, Put, Request
from edgesam_mobile.lab.protocol.stream import Lines
from edgesam_mobile.lab.simulated.faults import DAMAGES, Fault, Place, Script, damaged
from edgesam_mobile.lab.simulated.job import DELEGATES, JobRun
from edgesam_mobile.lab.simulated.store import Kept, Refused, Upload

if TYPE_CHECKING:
    from edgesam_mobile.lab.simulated.device import SimulatedDevice

LOOPBACK = "127.0.0.1"
_CLOSING = ("bad-line", "too-large", "unknown-version", "busy")
_SLICE = 0.05  # seconds between two looks at whether it is over
_STUCK = 60.0  # seconds that a desktop may take nothing


class Harness:
    """One life of the program: it ends when it is killed, and the device starts another one."""

    def __init__(self, device: SimulatedDevice) -> None:
        self.device = device
        self.dead = threading.Event()
        self.running: JobRun | None = None
        self._listener = socket.create_server((LOOPBACK, 0))
        self._listener.settimeout(_SLICE)
        self.port: int = self._listener.getsockname()[1]
        self._session: Conversation | None = None
        self._doorman = threading.Thread(target=self._welcome, name="doorman", daemon=True)
        self._doorman.start()

    def die(self) -> None:
        """Break off everything at once; gives control back when all threads are gone."""
        self.dead.set()
        self._doorman.join()
        self._listener.close()
        for thread in (self._session, self.running):
            if thread is not None:
                thread.join()

    def hello(self) -> Hello:
        """What it says of itself and its device."""
        return Hello(
            seq=0,
            harness=HarnessInfo(name="simulated", version="1", build="release", debugger=False),
            device=Device(
                id=self.device.name, class_="simulated", maker="none", model="simulated", os="none", cores=1
            ),
            runtimes=(Runtime(name="simulated", version="1", formats=self.device.formats, delegates=DELEGATES),),
        )

    def start_job(self, job: Job) -> JobRun:
        """Start a job; where another one is running, it fails at once."""
        busy = self.running is not None and not self.running.over.is_set()
        run = JobRun(self, job, self.hello(), busy=busy)
        if busy:
            run.run()
        else:
            self.running = run
            run.start()
        return run

    def kept(self, job: str) -> Kept:
        """The kept stream of a job, running or not.

        Raises:
            Refused: there is none.
        """
        if self.running is not None and self.running.job.job == job:
            return self.running.kept
        path = self.device.store.kept(job)
        if not path.exists():
            raise Refused("not-found", f"nothing is kept of job {job}")
        return Kept(path, finished=True)

    def cancel(self, job: str) -> None:
        """End the running job early.

        Raises:
            Refused: it does not run.
        """
        if self.running is None or self.running.job.job != job or self.running.over.is_set():
            raise Refused("not-found", f"job {job} does not run")
        self.running.cancelled.set()

    def _welcome(self) -> None:
        """Serve one session at a time; turn away others."""
        while not self.dead.is_set():
            try:
                connection = self._listener.accept()[0]
            except TimeoutError:
                continue
            if self._session is not None and self._session.is_alive():
                error = Error(seq=0, code="busy", message="another session is running")
                with connection, suppress(OSError):
                    connection.sendall(encode(error))
            else:
                self._session = Conversation(self, connection)
                self._session.start()


class Conversation(threading.Thread):
    """One session."""

    def __init__(self, harness: Harness, connection: socket.socket) -> None:
        super().__init__(name="conversation", daemon=True)
        self._harness, self._device, self._connection = harness, harness.device, connection
        self._seq = 0
        self._writing = threading.RLock()
        self.over = threading.Event()
        self._quiet_until = 0.0
        self._upload: Upload | None = None
        self._received = 0
        self._senders: list[Sender] = []

    def run(self) -> None:
        try:
            self._say(self._harness.hello())
            for line in self._lines():
                try:
                    self._answer(decode_request(line))
                except (Refused, BadMessage) as error:
                    self.say_error(error.code, error.message)
                    if error.code in _CLOSING:
                        return
        except BadMessage as error:  # a line without an end
            with suppress(OSError):
                self.say_error(error.code, error.message)
        except OSError:
            pass  # the desktop has left
        finally:
            self.over.set()
            for sender in self._senders:
                sender.join()
            self._connection.close()

    def _lines(self) -> Iterator[bytes]:
        """What the desktop sends, until it leaves, says nothing for too long, or the harness dies."""
        lines = Lines(LONGEST_LINE)
        self._connection.settimeout(_SLICE)
        heard = time.monotonic()
        while not (self.over.is_set() or self._harness.dead.is_set()):
            try:
                data = self._connection.recv(1 << 16)
            except TimeoutError:
                if any(sender.is_alive() for sender in self._senders):
                    heard = time.monotonic()
                if time.monotonic() - heard > self._device.idle:
                    return
                continue
            if not data:
                return
            yield from lines.split(data)
            heard = time.monotonic()
            time.sleep(self._device.read_delay)

    def _answer(self, request: Request | UnknownRequest) -> None:
        if isinstance(request, Put):
            self._upload = None
            self._upload = self._device.store.begin(request)
            self._finish_upload(at_least=True)
        elif isinstance(request, Chunk):
            self._take(request)
        elif isinstance(request, Job):
            if self._device.store.kept(request.job).exists():
                raise Refused("bad-line", f"job.job: {request.job} was used before")
            self._send_events(self._harness.start_job(request).kept, 0, "sent")
        elif isinstance(request, Cancel):
            self._harness.cancel(request.job)
        elif isinstance(request, Fetch):
            self._send_events(self._harness.kept(request.job), request.from_seq, "fetch")
        elif isinstance(request, Bye):
            self.over.set()
        else:
            raise Refused("unknown-type", f"no request is of type {request.type}")

    def _take(self, chunk: Chunk) -> None:
        """The next bytes of the open upload; what is on its way to one that was refused is dropped."""
        upload = self._upload
        if upload is None or upload.put.path != chunk.path:
            return
        self._received += len(chunk.data)
        fault = self._device.script.due("put", self._received)
        if fault is not None:
            if fault.kind in ("kill", "reboot"):
                upload.append_raw(chunk.data[: len(chunk.data) // 2])
            self.suffer(fault)
        try:
            upload.append(chunk)
            self._finish_upload(at_least=False)
        except Refused:
            self._upload = None
            raise

    def _finish_upload(self, *, at_least: bool) -> None:
        """Say how much is there: once it is everything, or ``at_least`` now."""
        assert self._upload is not None
        upload = self._upload
        upload.finish()
        if upload.complete or at_least:
            self._say(Ready(seq=self._seq, path=upload.put.path, offset=upload.offset, complete=upload.complete))

    def _send_events(self, kept: Kept, first: int, place: Place) -> None:
        """Send a kept stream beside whatever else is asked."""
        self._senders = [sender for sender in self._senders if sender.is_alive()]
        self._senders.append(Sender(self, kept, first, place, self._device.script))
        self._senders[-1].start()

    def suffer(self, fault: Fault) -> None:
        """What a fault does to a connection; raises ``OSError`` where nothing is left of it."""
        if fault.kind == "clock":
            self._device.clock.jump()
        elif fault.kind == "silence":
            self._quiet_until = time.monotonic() + fault.seconds
        else:
            if fault.kind != "cable":
                self._device.restart(fault)
            # A reset instead of a goodbye, as when a cable is pulled.
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.over.set()
            raise ConnectionResetError("a scripted fault")

    def goes_on(self) -> bool:
        """Whether there is still somebody to send to."""
        return not (self.over.is_set() or self._harness.dead.is_set())

    def _say(self, event: BaseModel) -> None:
        """Send an event of the session's own stream."""
        with self._writing:
            self.write(encode(event.model_copy(update={"seq": self._seq})))
            self._seq += 1

    def say_error(self, code: str, message: str) -> None:
        """Send an error of the session's own stream."""
        self._say(Error(seq=0, code=code, message=message))

    def write(self, data: bytes) -> None:
        """Send bytes, once a scripted silence is over.

        Raises:
            OSError: there is nobody to send to.
        """
        while time.monotonic() < self._quiet_until:
            if not self.goes_on():
                return
            time.sleep(_SLICE)
        with self._writing:
            send_all(self._connection, data, self.goes_on)


class Sender(threading.Thread):
    """Sends a kept stream from an event on, with the faults that are scripted for that."""

    def __init__(self, conversation: Conversation, kept: Kept, first: int, place: Place, script: Script) -> None:
        super().__init__(name="sender", daemon=True)
        self._conversation, self._kept, self._first = conversation, kept, first
        self._place, self._script = place, script
        self._held = b""

    def run(self) -> None:
        last, to = b"", self._conversation
        try:
            for lines in self._kept.lines(to.goes_on):
                last = lines[-1][1] if lines else last
                self._send([line for line in lines if line[0] >= self._first])
            if b'"type":"end"' not in last and to.goes_on():
                to.say_error("job-lost", "it broke off: the harness was killed, or the device restarted")
        except OSError:
            to.over.set()

    def _send(self, lines: list[tuple[int, bytes]]) -> None:
        """Send lines together, up to the next fault, and what that makes of its line."""
        together: list[bytes] = []
        for number, line in lines:
            fault = self._script.due(self._place, number)
            if fault is None:
                together += (line, self._held)
                self._held = b""
                continue
            self._conversation.write(b"".join(together))
            together.clear()
            if fault.kind == "reordered":
                self._held = line
            elif fault.kind in DAMAGES:
                self._conversation.write(damaged(fault.kind, line))
            else:
                self._conversation.suffer(fault)
                together.append(line)
            if fault.kind == "truncated":
                raise ConnectionAbortedError("the rest of the line never comes")
        self._conversation.write(b"".join(together))


def send_all(connection: socket.socket, data: bytes, goes_on: Callable[[], bool]) -> None:
    """Send, however slowly the other side reads, as long as it goes on.

    Raises:
        OSError: the connection is gone, nothing was taken for a minute, or it is over.
    """
    view, taken = memoryview(data), time.monotonic()
    while view:
        if not goes_on() or time.monotonic() - taken > _STUCK:
            raise ConnectionAbortedError("it is over")
        try:
            view = view[connection.send(view) :]
            taken = time.monotonic()
        except TimeoutError:
            continue
