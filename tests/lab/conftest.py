"""What the tests of the lab share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_phones(monkeypatch: pytest.MonkeyPatch) -> None:
    """No phone of whoever runs the tests is looked at, and no server of adb's is started."""
    monkeypatch.setattr("edgesam_mobile.lab.adb.adb_devices", list)
    monkeypatch.setattr("edgesam_mobile.lab.ios.ios_devices", list)
