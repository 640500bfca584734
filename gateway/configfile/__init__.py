"""The one loader of the configuration: files, places of faults, and the checks that cross tables."""

from gateway.config import effective_routes
from gateway.configfile.loading import LOCAL_FILE, SYSTEM_FILE, Loaded, find_config, load
from gateway.configfile.places import Place
from gateway.configfile.reading import PlacedFault

__all__ = [
    "LOCAL_FILE",
    "SYSTEM_FILE",
    "Loaded",
    "Place",
    "PlacedFault",
    "effective_routes",
    "find_config",
    "load",
]
