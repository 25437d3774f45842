"""The APK that Debian's tools build. That a device installs it is not tested: there is none."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import pytest

from android_harness.tools.build_apk import HARNESS, build_apk, compile_java, dex_classes, properties, run
from android_harness.tools.provision import APK, JVM
from edgesam_mobile.errors import EnvironmentMissing, PackageError
from tests.android.conftest import tools_or_skip

STREAMS = Path(__file__).parents[1] / "protocol" / "streams"

pytestmark = pytest.mark.slow  # Android's build tools make one first


def test_the_manifest_says_what_gradle_would(apk: Path) -> None:
    settings = properties()
    badging = run("aapt", "dump", "badging", apk)
    assert f"package: name='{settings['applicationId']}' versionCode='{settings['versionCode']}'" in badging
    assert f"sdkVersion:'{settings['minSdk']}'" in badging
    assert f"targetSdkVersion:'{settings['targetSdk']}'" in badging
    assert "launchable-activity: name='dev.edgesam.harness.MainActivity'" in badging
    assert "application-debuggable" not in badging
    assert "uses-permission" not in badging
    tree = run("aapt", "dump", "xmltree", apk, "AndroidManifest.xml")
    instrumentation = tree[tree.index("E: instrumentation") :]
    assert '="dev.edgesam.harness.JobInstrumentation"' in instrumentation
    assert f'android:targetPackage(0x01010021)="{settings["applicationId"]}"' in instrumentation
    assert "${" not in tree
    assert tree.count('="vnone"') == 2  # no runtime is packed, and the app says so


def test_what_the_manifest_names_is_packed_and_signatures_are_not(apk: Path) -> None:
    with zipfile.ZipFile(apk) as archive:
        assert {"AndroidManifest.xml", "classes.dex", "resources.arsc"} <= set(archive.namelist())
        assert archive.getinfo("resources.arsc").compress_type == zipfile.ZIP_STORED
    names = set(re.findall(r"Class descriptor +: 'L([^;]+);'", run("dexdump", apk)))
    assert {f"dev/edgesam/harness/{name}" for name in ("MainActivity", "JobInstrumentation", "core/Harness")} <= names
    assert {name for name in names if not name.startswith("dev/edgesam/harness/")} == set()


def test_it_is_signed_with_the_schemes_that_its_oldest_device_knows(apk: Path) -> None:
    said = run("apksigner", "verify", "-v", "--min-sdk-version", properties()["minSdk"], apk)
    assert "Verified using v2 scheme (APK Signature Scheme v2): true" in said


def test_an_altered_apk_does_not_verify(apk: Path, tmp_path: Path) -> None:
    altered = tmp_path / "altered.apk"
    data = bytearray(apk.read_bytes())
    place = data.index(b"classes.dex") + 2000
    data[place] ^= 1
    altered.write_bytes(data)
    with pytest.raises(PackageError, match="DOES NOT VERIFY"):
        run("apksigner", "verify", altered)


def test_a_lambda_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source" / "A.java"
    source.parent.mkdir()
    source.write_text("class A { Runnable run() { return () -> System.out.println(this); } }")
    with tools_or_skip():
        classes = compile_java(tmp_path / "classes", [source.parent], [])
        with pytest.raises(PackageError, match="min-sdk-version"):
            dex_classes(classes, tmp_path / "classes.dex")


def test_the_same_key_and_sources_give_the_same_bytes(apk: Path, tmp_path: Path) -> None:
    again = build_apk(tmp_path, keystore=apk.parent / "debug.p12")
    assert again.read_bytes() == apk.read_bytes()


def test_the_core_passes_its_own_tests_as_it_was_packed(apk: Path, apk_jar: Path, tmp_path: Path) -> None:
    with tools_or_skip():
        JVM.need()
    libraries = [Path(file) for file in JVM.files]
    sources = HARNESS / "core/src/test/java"
    tests = compile_java(tmp_path / "tests", [sources], [apk.parent / "classes", *libraries])
    names = [".".join(file.relative_to(sources).with_suffix("").parts) for file in sources.rglob("*Test.java")]
    path = [apk_jar, tests, HARNESS / "core/src/test/resources", *libraries]
    said = run(
        "java",
        "-Xmx512m",
        f"-Dstreams={STREAMS}",
        "-cp",
        ":".join(map(str, path)),
        "org.junit.runner.JUnitCore",
        *names,
    )
    found = re.search(r"OK \((\d+) tests\)", said)
    assert found is not None and int(found[1]) >= 30, said


def test_a_missing_tool_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(EnvironmentMissing, match="aapt") as missing:
        APK.need()
    assert "provision apk" in str(missing.value.hint)
