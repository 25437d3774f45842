"""A simulated device: a folder, a clock, a script of faults, and a harness that can be killed and started again."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from edgesam_mobile.lab.protocol.events import Event, Sample
from edgesam_mobile.lab.protocol.fields import Thermal
from edgesam_mobile.lab.simulated.faults import Fault, Script
from edgesam_mobile.lab.simulated.harness import LOOPBACK, Harness
from edgesam_mobile.lab.simulated.store import Store

_DAY = 24 * 3600 * 10**9
_BOOTED = 10**9  # nanoseconds on the monotonic clock when a harness can first run


class Clock:
    """A simulated device's time in nanoseconds: it passes only while something is "run"."""

    def __init__(self) -> None:
        self._ns, self._wall = _BOOTED, 1_700_000_000 * 10**9
        self._lock = threading.Lock()

    def ns(self) -> int:
        """The monotonic clock."""
        return self._ns

    def wall_ns(self) -> int:
        """The wall clock, which may jump."""
        return self._wall

    def advance(self, ns: int) -> int:
        """Let time pass; gives the monotonic clock after it."""
        with self._lock:
            self._ns += ns
            self._wall += ns
            return self._ns

    def jump(self) -> None:
        """The wall clock goes back by a day; the monotonic one knows nothing of it."""
        self._wall -= _DAY

    def restart(self) -> None:
        """The monotonic clock begins anew, as after a reboot."""
        self._ns = _BOOTED


class SimulatedDevice:
    """A device of class ``simulated``. Use it as a context; it listens on the loopback interface only.

    Args:
        folder: the harness's own folder; it stays when the device is gone.
        name: the device's ``id``.
        seed: of all times that it draws, together with the job's.
        faults: what goes wrong, and when.
        capacity: bytes of its storage; ``None`` for no limit.
        pace: real seconds that a frame takes; its own clock knows nothing of them.
        idle: seconds after which a silent session is ended.
        read_delay: real seconds between two looks at what arrives.
        iou: of every mask with the expected one.
        thermal: how hot it is.
        formats: of the artefacts whose files it takes, and then only pretends to run.

    Attributes:
        samples: how many it has kept, by job: its own count, to hold against what arrives.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "simulated",
        seed: int = 0,
        faults: Iterable[Fault] = (),
        capacity: int | None = None,
        pace: float = 0.0,
        idle: float = 60.0,
        read_delay: float = 0.0,
        iou: float = 0.999,
        thermal: Thermal = "nominal",
        formats: Iterable[str] = ("simulated",),
    ) -> None:
        self.store = Store(folder, capacity)
        self.clock = Clock()
        self.script = Script(faults)
        self.name, self.seed, self.pace, self.idle, self.read_delay = name, seed, pace, idle, read_delay
        self.iou, self.thermal, self.formats = iou, thermal, tuple(formats)
        self.samples: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._restarts: queue.Queue[Fault | None] = queue.Queue()
        self._harness: Harness | None = None
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    def __enter__(self) -> SimulatedDevice:
        self._harness = Harness(self)
        self._supervisor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._restarts.put(None)
        self._supervisor.join()

    def connect(self) -> socket.socket:
        """A new connection to the harness, as behind a forwarder: wherever it listens in its present life.

        Raises:
            ConnectionRefusedError: it does not run at the moment.
        """
        harness = self._harness
        if harness is None or harness.dead.is_set():
            raise ConnectionRefusedError(111, "the simulated device does not answer")
        return socket.create_connection((LOOPBACK, harness.port), timeout=5)

    def restart(self, fault: Fault) -> None:
        """Kill the harness now and start it again after the fault's seconds; with ``reboot``, the device as well."""
        assert self._harness is not None
        self._harness.dead.set()
        self._restarts.put(fault)

    def corrupt(self, path: str) -> None:
        """Turn one bit of a stored file, as failing storage does."""
        file = self.store.path(path)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)

    def count(self, event: Event) -> None:
        """Count a kept event."""
        if isinstance(event, Sample):
            with self._counting:
                self.samples[event.job] += 1

    def _supervise(self) -> None:
        while True:
            fault = self._restarts.get()
            assert self._harness is not None
            self._harness.die()
            if fault is None:
                return
            if fault.kind == "reboot":
                self.clock.restart()
            time.sleep(fault.seconds)
            self._harness = Harness(self)
