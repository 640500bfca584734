"""Devices and hospital systems to talk to; they share no code with the gateway or its drivers."""
