"""Builds the harness's APK from Debian packages alone: ``python -m android_harness.tools.build_apk out``.

No SDK, no Gradle, no AAR: core and app are compiled against signatures (``app/src/stubs``), and what is packed has no
runtime. It shows that everything compiles, packs and is signed; whoever wants to measure builds with Gradle.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

from android_harness.tools.provision import APK, JVM
from edgesam_mobile.errors import EdgeSamError, PackageError

HARNESS = Path(__file__).resolve().parents[1]
ANDROID = "{http://schemas.android.com/apk/res/android}"
# From 26 on, dx lets lambdas through as invoke-custom, which fails on a device; below, it refuses them.
_REFUSES_LAMBDAS = 24
_PASSWORD = "android"  # of a key that protects nothing
_HEAP = "-Xmx512m"
_FRAMEWORK = "/usr/share/android-framework-res/framework-res.apk"


def build_apk(out: Path, *, keystore: Path | None = None) -> Path:
    """Build, sign and check the APK ``out/harness.apk``; the same keystore gives the same bytes.

    Args:
        out: a folder, made if absent; also holds the intermediate files.
        keystore: with a key ``harness`` and the password ``android``; made in ``out`` if None.

    Raises:
        EnvironmentMissing: a tool is not on this machine.
        PackageError: something does not compile, pack or verify; holds the tool's last line.
    """
    APK.need()
    out.mkdir(parents=True, exist_ok=True)
    settings = properties()
    manifest = write_manifest(out / "AndroidManifest.xml", settings)
    classes, dex, raw = out / "classes", out / "classes.dex", out / "raw.apk"
    compile_app(classes)
    dex_classes(classes, dex)
    run(
        *("aapt", "package", "-f", "-M", manifest, "-S", HARNESS / "app/src/main/res"),
        *("-I", _FRAMEWORK, "-F", raw),
    )
    with zipfile.ZipFile(raw, "a", zipfile.ZIP_DEFLATED) as archive:
        # With a fixed time: the same sources give the same bytes.
        archive.writestr(
            zipfile.ZipInfo("classes.dex", (1980, 1, 1, 0, 0, 0)), dex.read_bytes(), zipfile.ZIP_DEFLATED
        )
    aligned, apk = out / "aligned.apk", out / "harness.apk"
    run("zipalign", "-f", "-p", "4", raw, aligned)
    key = keystore or make_keystore(out / "debug.p12")
    run(
        *("apksigner", "sign", "--ks", key, "--ks-pass", f"pass:{_PASSWORD}", "--ks-key-alias", "harness"),
        *("--min-sdk-version", settings["minSdk"], "--v4-signing-enabled", "false", "--out", apk, aligned),
    )
    run("zipalign", "-c", "-p", "4", apk)
    run(
        *("apksigner", "verify", "--min-sdk-version", settings["minSdk"]),
        *("--max-sdk-version", settings["targetSdk"], apk),
    )
    return apk


def properties() -> dict[str, str]:
    """What ``gradle.properties`` says."""
    lines = (HARNESS / "gradle.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def write_manifest(target: Path, settings: dict[str, str]) -> Path:
    """The app's manifest with what Gradle would add; its runtimes are "none", since none is packed."""
    text = (HARNESS / "app/src/main/AndroidManifest.xml").read_text()
    for name, value in {"applicationId": settings["applicationId"], "executorch": "none", "litert": "none"}.items():
        text = text.replace(f"${{{name}}}", value)
    ElementTree.register_namespace("android", ANDROID.strip("{}"))
    root = ElementTree.fromstring(text)
    root.set("package", settings["applicationId"])
    for name in ("versionCode", "versionName"):
        root.set(ANDROID + name, settings[name])
    sdk = {ANDROID + f"{name}Version": settings[name] for name in ("minSdk", "targetSdk")}
    root.insert(0, ElementTree.Element("uses-sdk", sdk))
    ElementTree.ElementTree(root).write(target, encoding="utf-8", xml_declaration=True)
    return target


def compile_app(classes: Path) -> Path:
    """Compile core and app into ``classes``, against signatures that stay outside.

    Raises:
        EnvironmentMissing, PackageError: as :func:`build_apk`.
    """
    # Debian's name for the jar of API 23.
    android = APK.need() / "usr/share/java/com.android.android-23.jar"
    stubs = classes.with_name("stubs")
    compile_java(stubs, [HARNESS / "app/src/stubs/java"], [android])
    sources = [HARNESS / "core/src/main/java", HARNESS / "app/src/main/java"]
    return compile_java(classes, sources, [stubs, android])


def compile_java(target: Path, sources: list[Path], classpath: list[Path]) -> Path:
    """Compile all Java files below ``sources`` into the folder ``target``, warnings being errors.

    Raises:
        EnvironmentMissing, PackageError: as :func:`build_apk`.
    """
    JVM.need()
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    files = sorted(str(file) for source in sources for file in source.rglob("*.java"))
    run(
        *("javac", f"-J{_HEAP}", "--release", "8", "-encoding", "UTF-8", "-Xlint:all,-options", "-Werror"),
        *("-cp", ":".join(map(str, classpath)) or ".", "-d", target, *files),
    )
    return target


def dex_classes(classes: Path, dex: Path) -> None:
    """Turn classes into the code of a device.

    Raises:
        EnvironmentMissing, PackageError: as :func:`build_apk`; also for lambdas.
    """
    dx = APK.need() / "usr/share/java/com.android.dx.jar"
    run(
        *("java", _HEAP, "-cp", dx, "com.android.dx.command.Main", "--dex"),
        *(f"--min-sdk-version={_REFUSES_LAMBDAS}", f"--output={dex}", classes),
    )
    code = run("dexdump", "-d", dex)
    if "invoke-custom" in code or "invoke-polymorphic" in code:
        raise PackageError("the app has lambdas, which a device does not run", hint="write them as classes")


def make_keystore(path: Path) -> Path:
    """A debug key for signing, made on the spot."""
    if not path.exists():
        run(
            *("keytool", "-genkeypair", "-keystore", path, "-storetype", "PKCS12", "-storepass", _PASSWORD),
            *("-alias", "harness", "-keyalg", "RSA", "-keysize", "2048", "-validity", "10000", "-dname", "CN=debug"),
        )
    return path


def run(*command: object) -> str:
    """A tool's standard output.

    Raises:
        PackageError: it fails; holds its last words.
    """
    answer = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if answer.returncode:
        words = (answer.stderr or answer.stdout).strip()
        raise PackageError(f"{Path(str(command[0])).name} fails: {words[-2000:]}")
    return answer.stdout


def main() -> int:
    """Build into the folder that is named; gives the error's exit code where it fails."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    try:
        apk = build_apk(out)
    except EdgeSamError as error:
        print(error.message, error.hint or "", sep="\n", file=sys.stderr)
        return error.exit_code
    print(f"{apk}: {apk.stat().st_size} bytes, without runtimes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
