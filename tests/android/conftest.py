"""What tests of the Android harness share: one APK a session, and skips that name the tool that is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from android_harness.host.build import build_host
from android_harness.tools.build_apk import build_apk
from android_harness.tools.dex2jar import dex2jar
from edgesam_mobile.errors import EnvironmentMissing
from tests.needed_tools import skip_without


@contextmanager
def tools_or_skip() -> Iterator[None]:
    """Skip where a tool is not on this machine, or fail (:func:`skip_without`)."""
    try:
        yield
    except EnvironmentMissing as missing:
        skip_without(f"{missing.message}; {missing.hint}")


@pytest.fixture(scope="session")
def apk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The APK, built from Debian packages."""
    with tools_or_skip():
        return build_apk(tmp_path_factory.mktemp("apk"))


@pytest.fixture(scope="session")
def apk_jar(apk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The APK's own code, translated back for a JVM."""
    with tools_or_skip():
        return dex2jar(apk, tmp_path_factory.mktemp("jar") / "apk.jar")


@pytest.fixture(scope="session")
def apk_command(apk_jar: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What runs a job with the APK's own core on the runtimes of this machine."""
    with tools_or_skip():
        return build_host(tmp_path_factory.mktemp("apk-host"), apk_jar)


@pytest.fixture(scope="session")
def android_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both formats of the bundled weights at 256 pixels; takes two minutes."""
    # Here, since this module is also imported in processes that need no torch.
    from edgesam_mobile.deploy.build import build
    from edgesam_mobile.deploy.options import BuildOptions

    folder = tmp_path_factory.mktemp("packages") / "small"
    build(BuildOptions("edge-sam-open", targets=("android",), precisions=("fp32",), input_size=256), folder)
    return folder
