"""A simulated device that behaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgesam_mobile.lab.simulated import SimulatedDevice


@pytest.fixture
def device(tmp_path: Path) -> Iterator[SimulatedDevice]:
    with SimulatedDevice(tmp_path / "device") as device:
        yield device
