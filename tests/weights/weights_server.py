"""A file server on this machine whose faults can be chosen, and an entry for the file it serves."""

from __future__ import annotations

import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from edgesam_mobile.weights.registry import Source, WeightsEntry

CONTENT = bytes(range(256)) * 2048  # 512 KiB: several of the chunks that a download is read in


class FileServer(ThreadingHTTPServer):
    """Serves ``content`` at every path and remembers the ``Range`` header of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = CONTENT
        self.status = 200
        self.content_type = "application/octet-stream"
        self.knows_ranges = True
        self.stop_after: int | None = None
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights.pt"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.knows_ranges else 0
        if server.status != 200 or (start and start >= len(server.content)):
            self.send_error(server.status if server.status != 200 else 416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", server.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.stop_after])

    def log_message(self, *_: object) -> None:
        pass


def make_entry(*sources: Source, pinned: bool = True) -> WeightsEntry:
    """An entry for :data:`CONTENT`."""
    return WeightsEntry(
        name="sample",
        architecture="edge-sam",
        filename="sample.pt",
        sha256=hashlib.sha256(CONTENT).hexdigest() if pinned else None,
        size=len(CONTENT) if pinned else None,
        licence="Apache-2.0",
        commercial_use=True,
        upsample=None,
        sources=sources,
        description="a sample",
        provenance="these tests",
    )
