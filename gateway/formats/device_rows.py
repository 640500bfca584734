"""The device rows above the metrics (OBX-4 with trailing zeros) of Devices that have one fixed shape.

MDC names a device type by one term and its levels by the terms after it: +1 MDS, +2 VMD, +3 channel
(69640, 69642 and 69643 of the oximeter, 69648 to 69650 of the gas analyser are in the table).
"""

from gateway.formats.terms import device_code
from gateway.model import Containment

_MDS_STEP = 1  # the oximeter's MDS term stands in no public table; it follows from the rule above


def oximeter() -> tuple[Containment, ...]:
    """Return the rows of a pulse oximeter: MDS 1.0.0.0, VMD 1.1.0.0, channel 1.1.1.0; its metrics are 1.1.1.n."""
    mds = device_code("MDC_DEV_ANALY_SAT_O2") + _MDS_STEP
    vmd, channel = "MDC_DEV_ANALY_SAT_O2_VMD", "MDC_DEV_ANALY_SAT_O2_CHAN"
    return (
        Containment(sub="1.0.0.0", code=mds, refid="MDC_DEV_ANALY_SAT_O2_MDS"),
        Containment(sub="1.1.0.0", code=device_code(vmd), refid=vmd),
        Containment(sub="1.1.1.0", code=device_code(channel), refid=channel),
    )
