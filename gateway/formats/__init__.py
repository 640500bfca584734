"""What content means."""
