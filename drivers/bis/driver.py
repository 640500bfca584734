"""Aspect, Covidien and Medtronic BIS VISTA over its binary serial protocol (source: docs/devices/bis.md)."""

from dataclasses import dataclass
from typing import ClassVar

from drivers.bis.session import BisSession
from gateway.driver import About, LineSettings, Session


@dataclass(frozen=True, kw_only=True)
class BisVista:
    """Settings of a BIS VISTA source.

    `eeg` asks for raw EEG, 128 samples a second of two channels; `spectra` for power spectra of 0.5 to 30 Hz beside the
    processed variables. `transmit = false` only listens where another recorder asks.
    """

    about: ClassVar[About] = About(
        name="bis",
        summary="BIS VISTA brain monitors, binary serial protocol",
        models=("BIS VISTA", "BIS VISTA bilateral"),
        source="the public program VSCaptureBISV (commit 5adc287); no manufacturer document is public",
        unverified=(
            "no public capture exists: tested with computed frames",
            "monitor menu that selects the binary protocol",
            "ACK and NAK frames: taken to have no inner part",
            "impedances (kOhm), smoothing (s), quick test and impedance test results",
            "bilateral monitors: layout declared in the source, not used there; which block is which channel",
            "scales of asymmetry index and of the deviations of BIS and EMG",
            "EEG rates other than 128 samples a second; how frames are numbered",
            "events and stored trends: no public description, their messages are kept and quarantined",
            "the ASCII protocol: no public description, not supported",
        ),
        line=LineSettings(baud=57600),
        silence_s=10.0,
        talks=False,
        harmless_polls=True,  # the source repeats its requests all the time
    )

    transmit: bool = True
    eeg: bool = True
    spectra: bool = False

    def open(self) -> Session:
        """Start asking, or listening."""
        return BisSession(processed=self.transmit, spectra=self.spectra, eeg=self.transmit and self.eeg)
