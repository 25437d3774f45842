"""What is said of a phone that cannot be measured on, and what to do about it: on a fake adb server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_adb import FakeAdb, FakePhone, Trouble

from edgesam_mobile.errors import DeviceError
from edgesam_mobile.lab.adb import LEAST_API, AdbLink, adb_devices
from edgesam_mobile.lab.protocol.link import Patience
from edgesam_mobile.lab.simulated import SimulatedDevice

HASTE = Patience(idle=1.0, job=1.0, busy=0.1, reconnect=1.0, cancel=1.0)


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePhone]:
    with SimulatedDevice(tmp_path / "phone") as device:
        phone = FakePhone("PHONE", device)
        with FakeAdb([phone]) as server:
            monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
            yield phone


@pytest.mark.parametrize(
    ("word", "state", "hint"),
    [
        ("unauthorized", "unauthorised", "accept this computer on the device's screen"),
        ("offline", "offline", "plug the cable in again, and see that the device is awake"),
        ("bootloader", "offline", "plug the cable in again, and see that the device is awake"),
    ],
)
def test_a_phone_in_another_state_is_listed_and_refused_with_the_same_advice(
    phone: FakePhone, word: str, state: str, hint: str
) -> None:
    phone.word = word
    (listed,) = adb_devices()
    assert (listed.key, listed.state, listed.hint) == ("adb:PHONE", state, hint)
    with pytest.raises(DeviceError, match=f"adb:PHONE is {word}") as caught:
        AdbLink("PHONE", patience=HASTE).open()
    assert caught.value.hint == hint


@pytest.mark.parametrize(("api", "refused"), [(LEAST_API - 1, True), (LEAST_API, False)])
def test_an_older_android_is_refused_by_its_number(phone: FakePhone, api: int, refused: bool) -> None:
    phone.properties["ro.build.version.sdk"] = str(api)
    link = AdbLink("PHONE", patience=HASTE)
    if not refused:
        assert link.open().device.class_ == "simulated"
        return
    with pytest.raises(DeviceError, match=f"adb:PHONE has Android API {api}") as caught:
        link.open()
    assert caught.value.hint == f"the harness needs {LEAST_API} (Android 8) or later"


def test_a_phone_that_is_not_there_is_looked_for_among_the_listed(phone: FakePhone) -> None:
    with pytest.raises(DeviceError, match="'OTHER' not found") as caught:
        AdbLink("OTHER", patience=HASTE).open()
    assert caught.value.hint == "`edgesam-mobile devices` lists what adb sees"


def test_without_a_harness_the_build_that_has_runtimes_is_named(phone: FakePhone) -> None:
    """That of `make apk` has none."""
    phone.trouble = [Trouble("am instrument", "cut")]
    with pytest.raises(DeviceError, match="the harness does not start on adb:PHONE") as caught:
        AdbLink("PHONE", patience=HASTE).open()
    assert ":app:assembleRelease" in str(caught.value.hint) and "--apk FILE" in str(caught.value.hint)
