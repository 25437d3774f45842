"""The Swift harness as a device on this machine: built from the checkout, started for a run and ended with it.

It is the iOS harness's own code with ONNX Runtime in the place of Core ML. Its device is of class ``host``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from edgesam_mobile.errors import DeviceError, EnvironmentMissing
from edgesam_mobile.lab.links import DuplexLink
from edgesam_mobile.lab.protocol.events import Hello

ADDRESS = "loopback-swift"
_SOURCES = Path(__file__).resolve().parents[2] / "ios_harness"
_SWIFT = _SOURCES / "tools" / "swift.sh"
_BUILD = _SOURCES / "build" / "loopback"
_PROGRAM = "harness-loopback"
_NO_TOOLCHAIN = 5  # how swift.sh ends without one
_LEAVING = 10.0  # seconds that the harness may take to end


def build_harness(say: Callable[[str], None] = lambda line: None) -> list[str]:
    """Compile the harness unless it is there as its sources are, and with it, where needed, a root for the compiler.

    Returns:
        The command that starts it, to be followed by its options.

    Raises:
        EnvironmentMissing: this is no checkout, there is no Swift and none can be had, or it does not compile.
    """
    if not _SWIFT.is_file():
        raise EnvironmentMissing(
            "the Swift harness is not here: it comes with the project's checkout, not with the installed package",
            hint="install the package from a checkout with `pip install -e .`",
        )
    say("building the Swift harness: some minutes at the first time")
    done = subprocess.run(
        [str(_SWIFT), "build", "-c", "release", "--product", _PROGRAM, "--scratch-path", str(_BUILD), "-j", "2"],
        cwd=_SOURCES,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode == 0:
        return [str(_SWIFT), "--run", str(_BUILD / "release" / _PROGRAM)]
    errors = [line for line in done.stdout.splitlines() if "error: " in line] or ["it does not say why"]
    what = errors[0].partition("error: ")[2] or errors[0]
    if done.returncode == _NO_TOOLCHAIN:
        raise EnvironmentMissing(what, hint="run `make tools` as root on Debian, or install Swift 5.9 or later")
    raise EnvironmentMissing(
        f"the Swift harness does not compile: {what}", hint=f"run `tools/swift.sh build` in {_SOURCES}"
    )


def onnx_library() -> Path:
    """ONNX Runtime's shared library, in its Python package.

    Raises:
        EnvironmentMissing: the package is not installed, or has none.
    """
    found = importlib.util.find_spec("onnxruntime")
    folders = found.submodule_search_locations if found and found.submodule_search_locations else []
    for folder in folders:
        for library in sorted(Path(folder, "capi").glob("libonnxruntime.so.*")):
            return library
    raise EnvironmentMissing("there is no ONNX Runtime library here", hint='pip install "edgesam-mobile[onnx]"')


class SwiftLink(DuplexLink):
    """The link to the Swift harness: opening it builds and starts one, closing it ends it.

    Args:
        say: told in a line what takes long.
    """

    def __init__(self, say: Callable[[str], None] = lambda line: None) -> None:
        super().__init__(ADDRESS, self._reach)
        self._say = say
        self._life = ExitStack()
        self._folder = Path()
        self._command: list[str] = []
        self._surroundings: dict[str, str] = {}
        self._process: subprocess.Popen[str] | None = None
        self._port = 0

    def open(self) -> Hello:
        try:
            self._surroundings = os.environ | {"EDGESAM_ORT_LIBRARY": str(onnx_library())}
            self._command = build_harness(self._say)
            self._folder = Path(self._life.enter_context(tempfile.TemporaryDirectory()))
            self._life.callback(self._end)
            return super().open()
        except BaseException:
            self._life.close()
            raise

    def close(self) -> None:
        super().close()
        self._life.close()

    def _reach(self) -> socket.socket:
        """A connection; to a harness started anew where the one before has ended, with all that it had kept."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        return socket.create_connection(("127.0.0.1", self._port), timeout=5)

    def _start(self) -> None:
        self._end()
        said = self._folder / "said"
        with said.open("w") as errors:
            # A session of its own: Ctrl-C is for the desktop, which cancels the job and takes its last events.
            self._process = subprocess.Popen(
                [*self._command, "--folder", str(self._folder / "harness")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self._surroundings,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            told = [*said.read_text(errors="replace").splitlines(), "it does not say why"]
            hint = told[1] if told[0].startswith("error: ") else None
            raise DeviceError(f"the Swift harness did not start: {told[0].removeprefix('error: ')}", hint=hint)
        self._port = json.loads(line)["port"]

    def _end(self) -> None:
        """End the harness as it ends by itself with the process that started it: by its standard input."""
        if self._process is None:
            return
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_LEAVING)
            except subprocess.TimeoutExpired:
                process.kill()
        self._process = None
