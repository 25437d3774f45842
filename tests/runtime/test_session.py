"""What can run which format here, and that native libraries keep quiet while they load."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgesam_mobile.deploy.formats import FORMATS
from edgesam_mobile.errors import EnvironmentMissing, PackageError, UsageError
from edgesam_mobile.package.manifest import GraphRecord
from edgesam_mobile.runtime.hush import hushed
from edgesam_mobile.runtime.session import OLD, RUNTIMES, SessionOptions, open_session, runnable

EXECUTABLE = ("onnx", "tflite", "executorch-xnnpack", "coreml", "executorch-coreml")
ONE_THREAD = SessionOptions(threads=1)
PORT = {"name": "image", "shape": [1, 3, 8, 8], "dtype": "float32", "layout": "NCHW", "meaning": ""}
FILE = {"path": "encoder", "sha256": "0" * 64, "bytes": 1}
RECORD = GraphRecord.model_validate(
    {"file": FILE, "inputs": [PORT], "outputs": [PORT], "op_types": {}, "parameters": 1}
)

# Writes to the descriptors from C, Python and a child process, as native libraries and converters do.
NOISE = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
def noise(text):
    os.write(2, f"{text} from C\\n".encode())
    libc.puts(f"{text} from stdio".encode()); libc.fflush(None)
    print(text, "from print")
    print(text, "from stderr", file=sys.stderr)
    os.system(f"echo {text} from a child >&2")
from edgesam_mobile.runtime.hush import hushed
noise("before")
try:
    with hushed():
        noise("inside")
        raise KeyError
except KeyError:
    noise("after")
"""


def noise_with(**environment: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if name != "EDGESAM_DEBUG"}
    call = [sys.executable, "-c", NOISE]
    done = subprocess.run(
        call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=kept | environment, check=True
    )
    return sorted(done.stdout.split("\n"))


def test_hushed_silences_everything_inside_and_restores_it_after_an_exception() -> None:
    sources = ("C", "a child", "print", "stderr", "stdio")
    assert noise_with() == sorted(
        ["", *(f"{when} from {source}" for when in ("before", "after") for source in sources)]
    )


def test_hushed_lets_everything_through_when_debugging() -> None:
    said = noise_with(EDGESAM_DEBUG="1")
    assert sum(line.startswith("inside from ") for line in said) == 5
    assert sum(line.startswith("after from ") for line in said) == 5


def test_hushed_silences_replaced_streams_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook, where Python's streams are not the process's descriptors."""
    monkeypatch.delenv("EDGESAM_DEBUG", raising=False)
    stdout = sys.stdout
    with hushed():
        print("inside")
        print("inside", file=sys.stderr)
    print("after")
    assert capsys.readouterr() == ("after\n", "")
    assert sys.stdout is stdout


def test_hushed_leaves_no_descriptor_open() -> None:
    code = (
        "import os\n"
        "from edgesam_mobile.runtime.hush import hushed\n"
        "def count(): return len(os.listdir('/proc/self/fd'))\n"
        "before = count()\n"
        "for _ in range(5):\n"
        "    with hushed(): pass\n"
        "print(count() - before)\n"
    )
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc to count descriptors in")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "0\n"


def test_every_format_that_is_built_has_a_line_in_the_table() -> None:
    assert RUNTIMES.keys() == FORMATS.keys() | OLD.values()
    assert OLD.keys() <= FORMATS.keys()
    for name, runtime in RUNTIMES.items():
        assert runtime.interpreted == ("coreml" in name)


@pytest.mark.parametrize("name", EXECUTABLE)
def test_a_format_is_runnable_where_its_runtime_is_installed(name: str) -> None:
    assert runnable(name) == all(importlib.util.find_spec(module) for module in RUNTIMES[name].needs)


def test_a_format_that_nothing_here_executes_says_so(tmp_path: Path) -> None:
    assert not runnable("unheard-of")
    with pytest.raises(EnvironmentMissing, match="nothing here executes unheard-of artefacts") as caught:
        open_session(tmp_path / "model", RECORD, "unheard-of", ONE_THREAD)
    assert caught.value.hint == f"known are {', '.join(RUNTIMES)}"


def test_arithmetic_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="no arithmetic 'fast'"):
        SessionOptions(1, "fast")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", EXECUTABLE)
def test_a_file_that_is_no_model_is_refused_by_each_runtime_in_one_line(name: str, tmp_path: Path) -> None:
    if not runnable(name):
        pytest.skip(f"{name} cannot be executed here")
    path = tmp_path / "encoder"
    path.write_bytes(b"this is not a model" * 100)
    with pytest.raises(PackageError, match="cannot load") as caught:
        open_session(path, RECORD, name, ONE_THREAD)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint == "build the package again"


def test_a_runtime_that_is_not_installed_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['onnxruntime'] = None  # as if it were not there\n"
        "from edgesam_mobile.runtime.session import open_session, runnable\n"
        "try:\n"
        "    open_session(None, None, 'onnx', None)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error.message, error.hint, sep='|')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    expected = 'EnvironmentMissing|onnx artefacts need onnxruntime here|pip install "edgesam-mobile[onnx]"\n'
    assert done.stdout == expected, done.stderr
