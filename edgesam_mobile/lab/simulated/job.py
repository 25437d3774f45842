"""The "runtime" of a simulated device: it checks files for real, and draws its times."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Literal

from edgesam_mobile.lab.protocol.events import (
    Check,
    End,
    Error,
    Event,
    Hello,
    Phase,
    PhaseName,
    Result,
    Sample,
    State,
)
from edgesam_mobile.lab.protocol.fields import Battery, MaskCheck, Memory, WarmedUp
from edgesam_mobile.lab.protocol.messages import encode
from edgesam_mobile.lab.protocol.requests import Job
from edgesam_mobile.lab.simulated.faults import DAMAGES, damaged
from edgesam_mobile.lab.simulated.store import Kept, Refused

if TYPE_CHECKING:
    from edgesam_mobile.lab.simulated.harness import Harness

DELEGATES = ("cpu", "gpu")
# Milliseconds that a made-up device takes, before the spread.
_STEPS = {"pre": 3.0, "encode": 40.0, "decode": 8.0, "post": 4.0}
_LOADS = {"load-cold": 400.0, "load-cached": 120.0}
_KERNEL = 25.0
_HEAT = ("nominal", "fair", "serious", "critical")


class WallState(State):
    """With a field that the protocol does not know, and a clock that jumps: readers must not mind either."""

    wall_ns: int


class Died(Exception):
    """The harness was killed in the middle of it."""


class JobRun(threading.Thread):
    """One job, running: events are kept as they arise; sending them is somebody else's work."""

    def __init__(self, harness: Harness, job: Job, hello: Hello, *, busy: bool) -> None:
        super().__init__(name=f"job {job.job}", daemon=True)
        self.job = job
        self.device = harness.device
        self.kept = Kept(self.device.store.kept(job.job), finished=False)
        self.cancelled = threading.Event()
        self.over = threading.Event()
        self._harness, self._hello, self._busy = harness, hello, busy
        self._seq = 0
        self._counts: Counter[str] = Counter()
        self._random = random.Random(f"{self.device.seed}/{job.seed}/{job.label}")
        self._held = b""

    def run(self) -> None:
        try:
            self._keep(self._hello.model_copy(update={"job": self.job.job}))
            status = self._status()
            self.over.set()  # before anybody can read so: the next job may come at once
            self._keep(End(seq=self._seq, job=self.job.job, status=status, counts=dict(self._counts)))
        except Died:
            pass
        finally:
            self.over.set()
            self.kept.finish()

    def _status(self) -> Literal["complete", "failed", "cancelled"]:
        try:
            if self._busy:
                raise Refused("busy", "another job is running")
            for event in self._events():
                self._keep(event)
                if self.cancelled.is_set():
                    return "cancelled"
                if isinstance(event, Check) and not event.passed:
                    return "failed"
            return "complete"
        except Refused as refused:
            self._keep(Error(seq=self._seq, job=self.job.job, code=refused.code, message=refused.message))
            return "failed"

    def _events(self) -> Iterator[Event]:
        """Everything between ``hello`` and ``end``; where something hinders it, :class:`Refused`."""
        job = self.job
        self._refuse_what_is_missing()
        yield self._phase("gate")
        yield from self._gate()
        yield self._phase("check")
        yield self._check()
        yield self._phase("load")
        yield self._sample("kernel", 0, _KERNEL)
        for stage, ms in _LOADS.items():
            yield self._sample(stage, 0, ms)
        yield self._phase("first")
        yield from self._frame("first-", 0)
        yield self._phase("warm-up")
        warmed_up = yield from self._warm_up()
        yield self._phase("measure")
        rounds, begun, told = 0, self.device.clock.ns(), self.device.clock.ns()
        while rounds < job.measure.rounds or self.device.clock.ns() - begun < job.measure.seconds * 1e9:
            yield from self._frame("", rounds)
            rounds += 1
            if self.device.clock.ns() - told >= job.state_every * 1e9:
                told = self.device.clock.ns()
                yield self._state()
        yield self._sample("kernel", 1, _KERNEL)
        yield self._state()
        yield Result(
            seq=self._seq,
            job=job.job,
            requested=job.delegate,
            applied=job.delegate,
            threads=job.threads,
            warm_up=warmed_up,
            rounds=rounds,
            note="simulated: times are drawn, not measured",
        )

    def _refuse_what_is_missing(self) -> None:
        if self.job.delegate not in (None, *DELEGATES):
            raise Refused("no-delegate", f"the simulated runtime has {' and '.join(DELEGATES)}")
        store = self.device.store
        for graph in (self.job.encoder, self.job.decoder):
            store.checked(graph.path, graph.sha256)
        for prompted in (self.job.frame, *self.job.golden):
            store.checked(prompted.image, None)
        for golden in self.job.golden:
            store.checked(golden.mask, None)

    def _gate(self) -> Iterator[Event]:
        yield self._state()
        gate = self.job.thermal_gate
        highest = _HEAT[-1] if gate is None or gate.thermal is None else gate.thermal
        if gate is not None and _HEAT.index(self.device.thermal) > _HEAT.index(highest):
            self.device.clock.advance(int(gate.wait * 1e9))
            raise Refused("hot", f"still {self.device.thermal} after {gate.wait:g} s")

    def _check(self) -> Event:
        masks = tuple(MaskCheck(iou=self.device.iou, best_same=True) for _ in self.job.golden)
        passed = all(mask.iou >= self.job.least_iou for mask in masks)
        return Check(seq=self._seq, job=self.job.job, masks=masks, least_iou=self.job.least_iou, passed=passed)

    def _warm_up(self) -> Generator[Event, None, WarmedUp]:
        limits, clock = self.job.warm_up, self.device.clock
        times: list[int] = []
        begun = clock.ns()
        while len(times) < limits.rounds and clock.ns() - begun < limits.seconds * 1e9:
            started = clock.ns()
            yield from self._frame("warm-", len(times))
            times.append(clock.ns() - started)
            last, before = times[-limits.window :], times[-2 * limits.window : -limits.window]
            if len(before) == limits.window:
                medians = statistics.median(before), statistics.median(last)
                if abs(medians[1] - medians[0]) < limits.tolerance * medians[0]:
                    return WarmedUp(rounds=len(times), stable=True)
        return WarmedUp(rounds=len(times), stable=False)

    def _frame(self, prefix: str, number: int) -> Iterator[Event]:
        begun = self.device.clock.ns()
        for stage, ms in _STEPS.items():
            yield self._sample(prefix + stage, number, ms)
        now = self.device.clock.ns()
        yield Sample(seq=self._seq, job=self.job.job, stage=f"{prefix}frame", round=number, ns=now - begun, at_ns=now)
        if self.device.pace:
            time.sleep(self.device.pace)

    def _sample(self, stage: str, number: int, ms: float) -> Event:
        ns = int(ms * 1e6 * self._random.lognormvariate(0.0, 0.05))
        now = self.device.clock.advance(ns)
        return Sample(seq=self._seq, job=self.job.job, stage=stage, round=number, ns=ns, at_ns=now)

    def _phase(self, name: PhaseName) -> Event:
        return Phase(seq=self._seq, job=self.job.job, name=name, at_ns=self.device.clock.ns())

    def _state(self) -> Event:
        return WallState(
            seq=self._seq,
            job=self.job.job,
            at_ns=self.device.clock.ns(),
            thermal=self.device.thermal,
            battery=Battery(level=0.8, charging=True, celsius=31.5),
            low_power=False,
            memory=Memory(bytes=200 << 20, peak_bytes=240 << 20),
            wall_ns=self.device.clock.wall_ns(),
        )

    def _keep(self, event: Event) -> None:
        """Keep an event, or what a fault makes of it."""
        line = encode(event)
        if self._harness.dead.is_set():
            self._die(line)
        self._seq += 1
        self._counts[event.type] += 1
        fault = None if self._held else self.device.script.due("run", event.seq)
        if fault is None:
            self.kept.append(line + self._held)
            self._held = b""
            self.device.count(event)
        elif fault.kind == "reordered":
            self._held = line
        elif fault.kind in DAMAGES:
            self.kept.append(damaged(fault.kind, line))
            if fault.kind == "truncated":
                raise Died
        elif fault.kind == "clock":
            self.device.clock.jump()
            self.kept.append(line)
            self.device.count(event)
        else:
            self.device.restart(fault)
            self._die(line)

    def _die(self, line: bytes) -> None:
        self.kept.append(line[: len(line) // 2])
        raise Died
