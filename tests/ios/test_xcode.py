"""Putting the harness app on an iPhone: against a made-up xcrun, since there is no Mac here."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import call, refusal

import edgesam_mobile
from edgesam_mobile.errors import DeviceError, EdgeSamError, EnvironmentMissing
from edgesam_mobile.lab import ios, xcode
from edgesam_mobile.lab.devices import Device, Harness, open_link
from edgesam_mobile.lab.ios import PORT, IosLink, ios_devices
from edgesam_mobile.lab.simulated import SimulatedDevice
from edgesam_mobile.lab.usbmux import ADDRESS
from edgesam_mobile.lab.xcode import Installation, known_devices
from tests.ios.fake_usbmuxd import FakeUsbmuxd, Phone

ANSWERS = Path(__file__).with_name("xcrun")
UDID, OLD = "00008110-0012345678ABCDEF", "abcdef0123456789abcdef0123456789abcdef01"
GOOD = {
    "xcodebuild.txt": "built.txt",
    "device-install-app.json": "installed.json",
    "device-process-launch.json": "launched.json",
    "list-devices.json": "list-devices.json",
}
Answering = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout with a project that nobody opens."""
    (tmp_path / "checkout" / "ios_harness" / "EdgeSAMHarness.xcodeproj").mkdir(parents=True)
    monkeypatch.setattr(edgesam_mobile, "__file__", str(tmp_path / "checkout" / "edgesam_mobile" / "__init__.py"))


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answering:
    """Puts the made-up xcrun on PATH; takes which file answers a command, where it is not success."""
    programs, folder = tmp_path / "programs", tmp_path / "answers"
    for path in (programs, folder):
        path.mkdir()
    (programs / "xcrun").symlink_to(ANSWERS.with_name("fake_xcrun"))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_XCRUN", str(folder))
    monkeypatch.setenv("EDGESAM_CACHE", str(tmp_path / "cache"))

    def answers(**instead: str) -> Path:
        changed = {name.replace("_", "-"): file for name, file in instead.items()}
        for name, file in GOOD.items():
            shutil.copyfile(ANSWERS / changed.get(Path(name).stem, file), folder / name)
        return folder

    return answers


def installed(team: str | None = None) -> list[str]:
    """Install; gives what was said meanwhile."""
    lines: list[str] = []
    Installation(UDID, team, lines.append)()
    return lines


def refused(act: Callable[[], object] = installed) -> EdgeSamError:
    with pytest.raises(EdgeSamError) as caught:
        act()
    for line in (caught.value.message, caught.value.hint):
        assert line and "\n" not in line
    return caught.value


def test_every_made_up_answer_says_that_it_is_one() -> None:
    for path in ANSWERS.iterdir():
        assert "not recorded" in path.read_text().splitlines()[0 if path.suffix == ".txt" else 1], path.name


@pytest.mark.usefixtures("project")
def test_the_app_is_built_in_release_installed_and_started(answering: Answering, tmp_path: Path) -> None:
    folder = answering()
    said = installed(team="ABCDE12345")
    assert len(said) == 2 and "unlocked" in said[1]
    build, install, launch = map(json.loads, (folder / "calls.jsonl").read_text().splitlines())
    assert build[0] == "xcodebuild" and build[-2:] == ["DEVELOPMENT_TEAM=ABCDE12345", "build"]
    assert build[build.index("-configuration") + 1] == "Release"
    assert build[build.index("-destination") + 1] == f"id={UDID}"
    app = tmp_path / "cache/ios-harness/Build/Products/Release-iphoneos/EdgeSAMHarness.app"
    assert install[:-2] == ["devicectl", "device", "install", "app", "--device", UDID, str(app)]
    assert launch[1:-2] == [
        "device", "process", "launch", "--terminate-existing", "--device", UDID, "dev.edgesam.harness",
    ]  # fmt: skip
    for call_ in (install, launch):
        assert call_[-2] == "--json-output"
    installed()
    again = json.loads((folder / "calls.jsonl").read_text().splitlines()[3])
    assert not any(word.startswith("DEVELOPMENT_TEAM") for word in again)  # the project's own


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("command", "file", "what", "to_do"),
    [
        ("xcodebuild", "no-team.txt", "not built: Signing for", "--team TEAM"),
        ("xcodebuild", "no-account.txt", "No Account for Team", "sign in to Xcode"),
        ("xcodebuild", "no-profile.txt", "No profiles for", "bundle id"),
        ("xcodebuild", "developer-mode-off.txt", "Unable to find a destination", "Developer Mode"),
        ("xcodebuild", "no-device.txt", "Unable to find a destination", "by cable"),
        ("xcodebuild", "no-xcode.txt", "requires Xcode", "xcode-select -s"),
        ("xcodebuild", "licence.txt", "not agreed", "-license accept"),
        ("xcodebuild", "compiler.txt", "cannot find 'Serverr'", "VERIFY.md"),
        ("device_install_app", "device-not-found.json", "not installed: The specified device", "by cable"),
        ("device_install_app", "not-paired.json", "not installed", "Trust This Computer?"),
        ("device_install_app", "developer-mode-off.json", "disk image", "Developer Mode"),
        ("device_install_app", "too-many-apps.json", "Failed to install", "remove another app"),
        ("device_process_launch", "locked.json", "not started: The application failed", "unlock the iPhone"),
        ("device_process_launch", "developer-not-trusted.json", "not started", "VPN & Device Management"),
        ("device_process_launch", "without-a-word.json", "does not say why", "VERIFY.md"),
    ],
)
def test_every_failure_says_what_to_do(command: str, file: str, what: str, to_do: str, answering: Answering) -> None:
    answering(**{command: file})
    error = refused()
    assert isinstance(error, DeviceError)
    assert what in error.message and to_do in (error.hint or "")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    "answer", ["", "{", "[]", "null", '{"info": 1}', '{"info": {"outcome": "success"}, "result": []}', "[" * 100_000]
)
def test_an_answer_that_is_none_is_a_refusal(answer: str, answering: Answering) -> None:
    (answering() / "device-install-app.json").write_text(answer)
    assert "the app was not installed" in refused().message
    (Path(os.environ["FAKE_XCRUN"]) / "list-devices.json").write_text(answer)
    assert known_devices() == {}


@pytest.mark.usefixtures("project")
def test_an_old_xcode_a_build_without_an_app_and_one_that_hangs_are_told(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = answering()
    (folder / "device-install-app.json").unlink()
    assert "Xcode 15" in (refused().hint or "")
    (folder / "no-plist").touch()
    shutil.rmtree(Path(os.environ["EDGESAM_CACHE"]))
    assert "left no EdgeSAMHarness.app" in refused().message
    (folder / "hangs").touch()
    monkeypatch.setattr(xcode, "_BUILD", 0.2)
    assert "took longer than 0.2 s" in refused().message


def test_without_xcode_or_project_it_is_told_before_anything_is_measured(
    bare_package: Path, answering: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("bench", bare_package, "--no-store", "--device", f"ios:{UDID}", "--install")
    monkeypatch.setattr(edgesam_mobile, "__file__", str(tmp_path / "site" / "edgesam_mobile" / "__init__.py"))
    assert "project of the harness is not here" in refusal(call(*words), 5)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert "by hand" in refusal(call(*words), 5)
    assert "--team without --install" in refusal(call("bench", bare_package, "--team", "X"), 2)
    with pytest.raises(EnvironmentMissing):
        open_link(f"ios:{UDID}", harness=Harness(build=True))


@pytest.fixture
def mux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeUsbmuxd]:
    with FakeUsbmuxd(tmp_path / "mux") as mux:
        monkeypatch.setenv(ADDRESS, mux.address)
        yield mux


def test_xcode_tells_model_and_system_of_what_is_on_a_cable(answering: Answering, mux: FakeUsbmuxd) -> None:
    answering()
    assert set(known_devices()) == {UDID, OLD, "00008120-000000000000ABCD"}
    for serial in (UDID.replace("-", ""), OLD, "00008130000000000000ABCD"):
        mux.attach(Phone(serial, {}))
    one, old, unknown = ios_devices()
    assert one == Device(
        f"ios:{UDID}", "attached", model="iPhone 14", os="iOS 18.1",
        hint="open the harness app on the iPhone and leave it in front",
    )  # fmt: skip
    assert (old.model, old.os) == ("iPhone X", "iOS 16.7") and "Developer Mode" in (old.hint or "")
    assert (unknown.model, unknown.os, unknown.state) == (None, None, "attached")


@pytest.mark.usefixtures("project")
def test_a_run_installs_first_and_then_finds_the_app(
    answering: Answering, mux: FakeUsbmuxd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = answering()
    said: list[tuple[str, str]] = []
    with SimulatedDevice(tmp_path / "device") as device:
        mux.attach(Phone(UDID.replace("-", ""), {PORT: device.connect}))
        link = open_link(f"ios:{UDID}", harness=Harness(build=True), say=lambda key, line: said.append((key, line)))
        assert link.open().device.class_ == "simulated"
        link.close()
    assert isinstance(link, IosLink) and {key for key, _ in said} == {f"ios:{UDID}"}
    assert len((folder / "calls.jsonl").read_text().splitlines()) == 3
    answering(device_process_launch="locked.json")
    monkeypatch.setattr(ios, "connect", lambda *_: pytest.fail("nothing is connected to what was not started"))
    with pytest.raises(DeviceError, match="not started"):
        open_link(f"ios:{UDID}", harness=Harness(build=True)).open()
