"""Makes ``loop-report.png``: ``python docs/pictures/loop_report.py PACKAGE OUT`` (after ``make tools``).

A package is measured over real adb by the APK's own core on this machine's ExecuTorch and LiteRT, and the report is
drawn in a browser. No phone takes part: the times are this machine's.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from android_harness.adb.loop import adb_loop, in_own_network  # noqa: E402
from android_harness.host.build import build_host  # noqa: E402
from android_harness.tools.build_apk import build_apk  # noqa: E402
from android_harness.tools.dex2jar import dex2jar  # noqa: E402
from edgesam_mobile.cli import app  # noqa: E402


def measure(folder: str, package: str, apk: str, command: list[str], store: str) -> None:
    """In a network of its own: bench over adb."""
    with adb_loop(Path(folder), command) as device:
        device.install(Path(apk))
        words = [
            "bench",
            package,
            "--device",
            f"adb:{device.serial}",
            "--apk",
            apk,
            "--store",
            store,
            "--tag",
            "loop",
        ]
        app([*words, "--launches", "5", "--seconds", "5"], standalone_mode=False)


def main() -> None:
    """Build, measure, draw, photograph."""
    package, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    store = out / "store.sqlite"
    with tempfile.TemporaryDirectory(prefix="loop") as scratch:
        here = Path(scratch)
        apk = build_apk(here / "apk")
        command = build_host(here / "host", dex2jar(apk, here / "apk.jar"))
        arguments = (str(here / "device"), str(package), str(apk), command, str(store))
        import loop_report  # by its name, since another process runs its function

        print(in_own_network(loop_report.measure, *arguments, timeout=1800))
    # A process of its own: a command ends the one that it runs in.
    command_line = Path(sys.executable).with_name("edgesam-mobile")
    subprocess.run([command_line, "report", "loop", "--store", store, "-o", out / "report.html"], check=True)
    browser = shutil.which("chromium") or "chromium"
    picture = f"--screenshot={out / 'loop-report.png'}"
    subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--hide-scrollbars",
            "--window-size=1200,1320",  # its figures, and what they are worth
            picture,
            (out / "report.html").as_uri(),
        ],
        check=True,
        capture_output=True,
    )


if __name__ == "__main__":
    main()
