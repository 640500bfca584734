"""Speakers to Destinations."""
