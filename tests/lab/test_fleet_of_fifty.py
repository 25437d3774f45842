"""Fifty simulated devices through the whole lab, faults and store included: is every sample accounted for?"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from device_runs import FORMATS, Quiet, small_inputs, small_package

from edgesam_mobile.lab.fleet import measure_on
from edgesam_mobile.lab.jobs import JobOptions, new_run
from edgesam_mobile.lab.links import DuplexLink
from edgesam_mobile.lab.protocol.link import Patience
from edgesam_mobile.lab.simulated import Fault, SimulatedDevice
from edgesam_mobile.lab.store import open_store

DEVICES = 50
TIGHT = 1000  # bytes of storage that no model fits into
PATIENCE = Patience(idle=20, job=5, reconnect=30)
# What goes wrong on a device, and how the first of its two launches ends; every device has the next one of these.
SCRIPTS: tuple[tuple[tuple[Fault, ...], str], ...] = (
    ((), "complete"),
    ((Fault("cable", "put", 3000),), "complete"),
    ((Fault("kill", "put", 3000),), "complete"),
    ((Fault("cable", "sent", 40),), "complete"),
    ((Fault("cable", "sent", 40), Fault("cable", "fetch", 60)), "complete"),
    ((Fault("kill", "run", 60),), "truncated"),
    ((Fault("reboot", "run", 60),), "truncated"),
    ((Fault("clock", "run", 40),), "complete"),
    ((Fault("silence", "sent", 40, seconds=60),), "complete"),
    *(
        ((Fault(kind, "sent", 40),), "complete")
        for kind in ("malformed", "not-utf8", "oversized", "gap", "reordered", "truncated")
    ),
    ((), "refused"),
)


@pytest.mark.slow
def test_of_fifty_devices_with_faults_every_sample_is_in_the_store_once(tmp_path: Path) -> None:
    package, manifest = small_package(tmp_path / "package")
    store, run = open_store(str(tmp_path / "store.sqlite")), new_run(manifest, package, {})
    store.begin(run)
    scripts = [SCRIPTS[number % len(SCRIPTS)] for number in range(DEVICES)]
    with ExitStack() as running:
        devices = [
            running.enter_context(
                SimulatedDevice(
                    tmp_path / f"device{number}",
                    name=f"{number}",
                    seed=number,
                    formats=FORMATS,
                    faults=faults,
                    capacity=TIGHT if ends == "refused" else None,
                )
            )
            for number, (faults, ends) in enumerate(scripts)
        ]
        outcomes, _ = measure_on(
            [DuplexLink(f"simulated:{device.name}", device.connect, patience=PATIENCE) for device in devices],
            *(package, manifest, small_inputs(tmp_path), JobOptions(seconds=0.05, rounds=20, launches=1)),
            store=lambda launch: store.add_launch(run.id, launch),
            watcher=Quiet(),
        )
    stored = {launch.id: launch for launch in store.run(run.id).launches}
    for outcome, device, (faults, ends) in zip(outcomes, devices, scripts, strict=True):
        statuses = [launch.status for launch in outcome.launches]
        if ends == "refused":
            assert statuses == [] and "no-space" in str(outcome.error), outcome
            continue
        assert statuses == [ends, "complete"], (faults, outcome.error, [one.error for one in outcome.launches])
        for launch in outcome.launches:
            kept = stored.pop(launch.id)
            sequence = [sample.seq for sample in kept.samples]
            assert len(sequence) == len(set(sequence)) == device.samples[launch.id] > 0, faults
        assert not any(device.script.waits_at(fault.place) for fault in faults), "a fault that never came"
    assert stored == {}
