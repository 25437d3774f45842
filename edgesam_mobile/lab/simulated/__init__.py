"""A simulated device: it speaks the duplex protocol for real, but what it "runs" are drawn times.

For tests and demonstrations of everything around a measurement. Its class is ``simulated`` wherever it is named, and
its times say nothing about any hardware.
"""

from edgesam_mobile.lab.simulated.device import SimulatedDevice
from edgesam_mobile.lab.simulated.faults import Fault

__all__ = ["Fault", "SimulatedDevice"]
