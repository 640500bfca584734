"""How bytes are framed and answered."""
