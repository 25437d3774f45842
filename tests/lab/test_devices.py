"""Which devices there are, what addresses mean, and lab files that are refused."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import call, refusal

from edgesam_mobile.errors import UsageError
from edgesam_mobile.lab.adb import _battery
from edgesam_mobile.lab.devices import Device, discover, read_lab, select
from edgesam_mobile.lab.targets import load_target

FOUND = [
    Device("host", "ready"),
    Device("adb:A", "ready", labels=("nightly", "shelf")),
    Device("adb:B", "unauthorised", labels=("nightly",)),
]


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("addresses", "keys"),
    [
        (["host"], ["host"]),
        (["all"], ["adb:A"]),
        (["label:nightly"], ["adb:A", "adb:B"]),
        (["adb:C", "label:shelf", "adb:C"], ["adb:C", "adb:A"]),
        (["loopback:5000"], ["loopback:5000"]),
    ],
)
def test_addresses_mean_devices_each_once(addresses: list[str], keys: list[str]) -> None:
    assert select(addresses, FOUND) == keys


@pytest.mark.parametrize("address", ["", "pixel", "adb:", "label:none", "usb:1"])
def test_an_address_that_means_nothing_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        select([address], FOUND)


def test_a_lab_file_names_devices_and_says_which_are_away(listener: int, tmp_path: Path) -> None:
    lab = tmp_path / "lab.toml"
    lab.write_text(
        f'[[device]]\nkey = "loopback:{listener}"\nname = "On the desk"\nlabels = ["desk"]\n'
        '[[device]]\nkey = "adb:GONE"\nlabels = ["desk"]\n'
    )
    host, here, gone = discover(read_lab(lab))
    assert (host.key, host.state) == ("host", "ready")
    assert (here.model, here.state, here.labels, here.hint) == ("On the desk", "ready", ("desk",), None)
    assert (gone.state, gone.labels) == ("absent", ("desk",)) and gone.hint
    told = call("devices", "--lab", lab, "--json")
    assert [d["key"] for d in json.loads(told.stdout)["devices"]] == [host.key, here.key, gone.key]
    assert call("devices", "--lab", lab, "--quiet").stdout.split() == ["host", here.key]
    assert "On the desk" in call("devices", "--lab", lab).stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot read"),
        ("[[device]", "is no TOML"),
        ('[[device]]\nkey = "adb:A"\nlable = ["x"]', "device.0.lable"),
        ('[[device]]\nkey = "A"', "device.0.key"),
        ('[[device]]\nkey = "adb:A"\n[[device]]\nkey = "adb:A"', "names adb:A twice"),
        ('[[device]]\nkey = "adb:A"\nlabels = ["two words"]', "device.0.labels.0"),
    ],
)
def test_lab_files_that_cannot_be_are_refused(text: str | None, told: str, tmp_path: Path) -> None:
    lab = tmp_path / "lab.toml"
    if text is not None:
        lab.write_text(text)
    assert told in refusal(call("devices", "--lab", lab), 2)


def test_the_examples_of_the_document_are_read(tmp_path: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "lab.md").read_text()
    lab, target = re.findall(r"^```toml\n(.*?)^```", document, flags=re.MULTILINE | re.DOTALL)
    for name, text in (("lab.toml", lab), ("target.toml", target)):
        (tmp_path / name).write_text(text)
    assert read_lab(tmp_path / "lab.toml").device[0].labels == ("galaxy", "nightly")
    kiosk = load_target(str(tmp_path / "target.toml"))
    # TFLite on Android never tells its delegate: asking for one has to do.
    assert (kiosk.device.models, kiosk.evidence.delegate) == (("KT-200",), "asked")


def test_batteries_are_read_as_android_prints_them() -> None:
    text = "Current Battery Service state:\n  AC powered: false\n  level: 87\n  scale: 100\n  temperature: 291\n"
    assert _battery(text) == pytest.approx({"level": 0.87, "temperature": 29.1})
    assert _battery("Can't find service: battery") == {} == _battery("  level: unknown\n")
