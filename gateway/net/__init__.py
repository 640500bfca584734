"""Streams: byte pipes to Devices."""
