"""Finding out what stands at a port: `gateway probe`."""

from gateway.probing.engine import PROBE_S, Report, probe
from gateway.probing.judging import Finding
from gateway.probing.stanza import stanza_of

__all__ = ["PROBE_S", "Finding", "Report", "probe", "stanza_of"]
