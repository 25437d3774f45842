"""A real browser, without a window: a picture of a page, what its console said, and what the page asked for."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@dataclass(frozen=True)
class Seen:
    """What came of a page.

    Attributes:
        console: its messages; what the page's own policy forbids is among them.
        asked: addresses that the page made the browser ask for, itself included; not what the browser asks for
            on its own account.
    """

    picture: Path
    console: list[str]
    asked: set[str]
    address: str


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def show(page: Path, folder: Path, *, width: int, height: int, dark: bool = False) -> Seen:
    """Open a page from a server of its own, so that its requests can be told from the browser's."""
    assert BROWSER is not None
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Silent, directory=str(page.parent)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    origin = f"http://127.0.0.1:{server.server_address[1]}"
    picture, log = folder / "picture.png", folder / "net.json"
    try:
        ended = subprocess.run(
            [
                BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={folder / 'profile'}",
                f"--window-size={width},{height}", f"--screenshot={picture}", f"--log-net-log={log}",
                *(("--blink-settings=preferredColorScheme=0",) if dark else ()), f"{origin}/{page.name}",
            ],
            capture_output=True, text=True, timeout=90,
        )  # fmt: skip
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    console = re.findall(r"CONSOLE[:(]\d*[\])]*\s*(.*)", ended.stderr)
    return Seen(picture, console, _asked(log, origin), f"{origin}/{page.name}")


def _asked(log: Path, origin: str) -> set[str]:
    record = json.loads(log.read_text())
    start = record["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    found = (event.get("params", {}) for event in record["events"] if event["type"] == start)
    return {
        params["url"]
        for params in found
        if params.get("url", "").startswith(origin) or str(params.get("initiator", "")).startswith(origin)
    }
