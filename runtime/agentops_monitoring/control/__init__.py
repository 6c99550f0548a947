"""Stopping agents and letting them run again; the plane's function `stop` and the command `resume`."""
