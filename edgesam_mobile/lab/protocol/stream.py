"""Streams of events: from bytes, in any pieces, to good events, and then what is wrong with the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from edgesam_mobile.lab.protocol.events import End, Error, Event, Hello
from edgesam_mobile.lab.protocol.fields import LONGEST_LINE
from edgesam_mobile.lab.protocol.messages import BadMessage, Unknown, decode_event, plain

Transport = Literal["one-job", "duplex"]
_STATUS = b"INSTRUMENTATION_STATUS: event="
_FOLDER = b"INSTRUMENTATION_STATUS: folder="
_LAST_WORDS = (
    b"INSTRUMENTATION_RESULT: shortMsg=",
    b"INSTRUMENTATION_RESULT: longMsg=",
    b"INSTRUMENTATION_STATUS: Error=",
    b"INSTRUMENTATION_FAILED: ",
)
# A device that invents new types or jobs without end must not fill the memory.
_MOST_UNKNOWN_TYPES = 64
_MOST_STREAMS = 1024


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a stream stopped being one; ``code`` as in the protocol's *What a reader finds*."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Ending:
    """How a stream ended.

    Attributes:
        kind: ``whole`` with its ``end``; ``truncated`` without it; ``damaged`` where something in it is wrong.
        status: what ``end`` says.
        code, message: of the fault, or why it is truncated.
    """

    kind: Literal["whole", "truncated", "damaged"]
    status: Literal["complete", "failed", "cancelled"] | None = None
    code: str | None = None
    message: str | None = None


@dataclass
class Sequence:
    """What has been seen of one stream, over all its readings.

    Attributes:
        next: the ``seq`` that is still to come; everything before it was given out once.
        counts: events by type, unknown ones too.
        skipped: unknown ones by type.
        job: the job that the stream belongs to.
    """

    next: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    job: str | None = None
    end: End | None = None


class Reader:
    """Events out of the bytes of one connection, one process or one kept file.

    After the first fault it gives nothing more. What it had given before stays good: another reader with the same
    ``streams`` reads the kept events again, from any ``seq`` that leaves no gap, and gives only what is new.

    Args:
        transport: ``one-job``: everything belongs to one stream. ``duplex``: events with a ``job`` belong to the
            job's stream, the others to the session's.
        instrumentation: the lines are Android's ``am instrument -r``: events stand behind
            ``INSTRUMENTATION_STATUS: event=``, other lines are passed over.
        streams: what was seen before, by job; the session's, or the only one, is at ``None``.

    Attributes:
        fault: the first one.
        last_words: why a process ended, as Android tells it.
        folder: where the harness keeps its files, as an instrumentation tells it.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        instrumentation: bool = False,
        streams: dict[str | None, Sequence] | None = None,
    ) -> None:
        self.transport = transport
        self.streams = {} if streams is None else streams
        self.fault: Fault | None = None
        self.last_words: str | None = None
        self.folder: str | None = None
        self._instrumentation = instrumentation
        self._lines = Lines(LONGEST_LINE + (len(_STATUS) if instrumentation else 0))
        self._expected: dict[str | None, int] = {}

    def expect(self, job: str, sequence: Sequence) -> None:
        """Of all jobs, only this one's events are to come, from any ``seq`` on that leaves no gap."""
        session = self.streams.get(None, Sequence())
        self.streams = {None: session, job: sequence}
        self._expected = {key: number for key, number in self._expected.items() if key is None}

    def feed(self, data: bytes) -> list[Event]:
        """The good and new events that ``data`` completes, in order; see ``fault`` for what comes after them."""
        events: list[Event] = []
        if self.fault is None:
            try:
                for line in self._lines.split(data):
                    payload = self._payload(line) if self._instrumentation else line
                    if payload is not None and (event := self._take(decode_event(payload))) is not None:
                        events.append(event)
            except BadMessage as error:
                self.fault = Fault(error.code, f"line {self._lines.number}: {error.message}")
        return events

    def ending(self, job: str | None = None) -> Ending:
        """How a stream ended, if nothing more comes: a job's, or with ``one-job`` the only one."""
        sequence = self.streams.get(job, Sequence())
        if self.fault is not None:
            return Ending("damaged", code=self.fault.code, message=self.fault.message)
        if sequence.end is not None:
            return Ending("whole", status=sequence.end.status)
        torn = ", in the middle of a line" if self._lines.torn else ""
        words = f"; the device said: {self.last_words}" if self.last_words else ""
        return Ending(
            "truncated", code="truncated", message=f"the events end at seq {sequence.next} without `end`{torn}{words}"
        )

    def _payload(self, line: bytes) -> bytes | None:
        if line.startswith(_STATUS):
            return line[len(_STATUS) :]
        if line.startswith(_FOLDER):
            self.folder = plain(line[len(_FOLDER) :].decode(errors="replace").strip())
        for start in _LAST_WORDS:
            if line.startswith(start):
                self.last_words = plain(line[len(start) :].decode(errors="replace"))
        return None

    def _take(self, event: Event | Unknown) -> Event | None:
        """The event, if it is in its place, new and known."""
        sequence = self._sequence(event)
        key = sequence.job if self.transport == "duplex" else None
        # The first of a reading may be an old one, but none may be missing before it.
        expected = self._expected.get(key, min(event.seq, sequence.next))
        if event.seq != expected:
            raise BadMessage("gap", f"seq {event.seq} where {expected} was to come")
        self._expected[key] = expected + 1
        if event.seq < sequence.next:
            return None
        self._check(event, sequence)
        sequence.next += 1
        sequence.counts[event.type] += 1
        if isinstance(event, Unknown):
            sequence.skipped[event.type] += 1
            return None
        if isinstance(event, End):
            sequence.end = event
        return event

    def _sequence(self, event: Event | Unknown) -> Sequence:
        job = getattr(event, "job", None)
        key = job if self.transport == "duplex" else None
        if key not in self.streams and len(self.streams) >= _MOST_STREAMS:
            raise BadMessage("bad-line", f"events of more than {_MOST_STREAMS} jobs")
        sequence = self.streams.setdefault(key, Sequence(job=job))
        if job is not None and sequence.job is None:
            sequence.job = job
        if job not in (None, sequence.job):
            raise BadMessage("bad-line", f"an event of job {job} in the stream of {sequence.job}")
        return sequence

    def _check(self, event: Event | Unknown, sequence: Sequence) -> None:
        """Refuse what may not stand at this place of a stream."""
        # Who is refused at the door is not greeted first.
        at_the_door = isinstance(event, Error) and event.job is None and self.transport == "duplex"
        if sequence.next == 0 and not isinstance(event, Hello) and not at_the_door:
            raise BadMessage("no-hello", f"the stream begins with {event.type}")
        if sequence.end is not None:
            raise BadMessage("bad-line", f"{event.type} after `end`")
        if isinstance(event, End):
            said = {name: number for name, number in event.counts.items() if number}
            if said != sequence.counts:
                seen = dict(sequence.counts)
                differing = sorted(name for name in said.keys() | seen.keys() if said.get(name) != seen.get(name))
                name = differing[0]
                raise BadMessage(
                    "counts", f"`end` counts {said.get(name, 0)} events {plain(name)}, {seen.get(name, 0)} came"
                )
        if (
            isinstance(event, Unknown)
            and event.type not in sequence.skipped
            and len(sequence.skipped) >= _MOST_UNKNOWN_TYPES
        ):
            raise BadMessage("bad-line", f"more than {_MOST_UNKNOWN_TYPES} unknown types of events")


class Lines:
    """Whole lines out of pieces, holding no more than one line and one piece.

    Attributes:
        number: of the line given last, from 1.
    """

    def __init__(self, longest: int) -> None:
        self.number = 0
        self._longest = longest
        self._rest = bytearray()

    @property
    def torn(self) -> bool:
        """Whether there is a beginning of a line whose end has not come."""
        return bool(self._rest)

    def split(self, data: bytes) -> Iterator[bytes]:
        """The lines that ``data`` completes, with their newlines.

        Raises:
            BadMessage: a line is too long; what came of it is dropped.
        """
        start = 0
        while (newline := data.find(b"\n", start)) >= 0:
            line = bytes(self._rest) + data[start : newline + 1]
            self._rest.clear()
            start = newline + 1
            self.number += 1
            self._limit(len(line))
            yield line
        self._limit(len(self._rest) + len(data) - start + 1, self.number + 1)
        self._rest += data[start:]

    def _limit(self, length: int, number: int | None = None) -> None:
        if length > self._longest:
            self.number = number or self.number
            self._rest.clear()
            raise BadMessage("too-large", f"longer than {self._longest} bytes")


def read(pieces: Iterable[bytes], reader: Reader) -> Iterator[Event]:
    """All good and new events; afterwards ``reader`` says how it ended. Stops reading at a fault."""
    for piece in pieces:
        yield from reader.feed(piece)
        if reader.fault is not None:
            return
