"""An APK's code as a jar that a JVM runs, by Debian's enjarify: what was packed is tested, not what was compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from android_harness.tools.provision import ENJARIFY
from edgesam_mobile.errors import PackageError


def dex2jar(apk: Path, jar: Path) -> Path:
    """Translate every class of an APK.

    Raises:
        EnvironmentMissing: enjarify was not fetched.
        PackageError: a class cannot be translated, as with lambdas.
    """
    packages = ENJARIFY.need() / "usr/lib/python3/dist-packages"
    # enjarify compiles regular expressions that newer Pythons warn of.
    command = [sys.executable, "-W", "ignore", "-m", "enjarify.main", "-f", "-o", str(jar), str(apk)]
    answer = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(packages)}, capture_output=True, text=True, check=False
    )
    said = answer.stdout + answer.stderr
    if answer.returncode or ", 0 classes had errors" not in said:
        raise PackageError(f"enjarify fails: {said.strip()[-2000:]}")
    return jar
