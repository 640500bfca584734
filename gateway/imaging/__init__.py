"""DIMSE services, as functions of request and parts."""
