"""Device languages; no I/O."""
