"""Builds the harness for this machine: ``python -m android_harness.host.build out``.

The app's own core in a JVM, on the real ExecuTorch and LiteRT: their Python wheels hold shared libraries for C++,
which small bridges lead to Java.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from android_harness.tools.build_apk import HARNESS, compile_java, properties, run
from android_harness.tools.provision import HOST
from edgesam_mobile.errors import EdgeSamError, EnvironmentMissing

MAIN = "dev.edgesam.harness.host.Main"
_HEAP = "-Xmx1g"
# A runtime may crash the process, as LiteRT may on a file that is cut short: it then leaves no files.
_CRASHES = ("-XX:+ErrorFileToStderr", "-XX:-CreateCoredumpOnCrash")
_EXECUTORCH_LIBRARIES = (
    *("executorch", "executorch_threadpool", "executorch_backend_xnnpack"),
    "executorch_kernels_optimized",
)


def build_host(out: Path, core: Path | None = None) -> list[str]:
    """Compile core, host harness and both bridges into ``out``.

    Args:
        core: classes or a jar to take the core from when it runs, such as the APK's own; ``None``: the compiled one.

    Returns:
        The command that runs a job, to be followed by the harness's folder, the job's path in it, and what is to
        stand before each event.

    Raises:
        EnvironmentMissing: a tool or a runtime is not installed.
        PackageError: something does not compile; holds the compiler's last words.
    """
    HOST.need()
    out.mkdir(parents=True, exist_ok=True)
    compiled = compile_java(out / "core", [HARNESS / "core/src/main/java"], [])
    classes = compile_java(out / "host", [HARNESS / "host/src/main/java"], [compiled])
    native = out / "native"
    native.mkdir(exist_ok=True)
    executorch, litert = _wheel("executorch"), _wheel("ai_edge_litert")
    headers = executorch / "include"
    _compile_bridge(
        native / "libedgesam_executorch.so",
        HARNESS / "host/src/main/cpp/executorch.cpp",
        executorch / "lib",
        _EXECUTORCH_LIBRARIES,
        *("-DC10_USING_CUSTOM_GENERATED_MACROS", "-isystem", headers),
        *("-isystem", headers / "executorch/runtime/core/portable_type/c10"),
    )
    _compile_bridge(native / "libedgesam_litert.so", HARNESS / "host/src/main/cpp/litert.cpp", litert, ("LiteRt",))
    return [
        *("java", _HEAP, *_CRASHES, f"-Djava.library.path={native}", f"-Dharness={properties()['versionName']}"),
        f"-Dexecutorch={importlib.metadata.version('executorch')}",
        f"-Dlitert={importlib.metadata.version('ai-edge-litert')}",
        *("-cp", os.pathsep.join((str(core or compiled), str(classes))), MAIN),
    ]


def _compile_bridge(target: Path, source: Path, folder: Path, libraries: tuple[str, ...], *options: object) -> None:
    java = _java_home() / "include"
    run(
        *("g++", "-O2", "-shared", "-fPIC", "-std=c++17", "-Wall", "-Werror", *options),
        *("-isystem", java, "-isystem", java / "linux", source, "-o", target),
        # All are needed, though nothing calls them: operators and backends register themselves as they are loaded.
        *("-Wl,--no-as-needed", f"-L{folder}", *(f"-l{name}" for name in libraries), f"-Wl,-rpath,{folder}"),
    )


def _java_home() -> Path:
    home = Path(shutil.which("javac") or "").resolve().parents[1]
    if not (home / "include" / "jni.h").exists():
        raise EnvironmentMissing("the JDK has no jni.h", hint="install a whole one, such as openjdk-17-jdk-headless")
    return home


def _wheel(module: str) -> Path:
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise EnvironmentMissing(f"{module} is not installed", hint='pip install "edgesam-mobile[all]"')
    return Path(found.submodule_search_locations[0])


def main() -> int:
    """Build into the folder that is named, and print the command; gives the error's exit code where it fails."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    try:
        print(*build_host(out.absolute()))
    except EdgeSamError as error:
        print(error.message, error.hint or "", sep="\n", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
