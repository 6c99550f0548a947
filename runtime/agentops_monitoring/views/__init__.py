"""Pure functions from figures to SVG and HTML, for CloudWatch custom widgets and for the local report.

Everything here is text in, text out: no AWS call, no clock, no randomness. Text and lines are drawn in
``currentColor``, so the same drawing reads on CloudWatch's light and dark theme; nothing uses what
CloudWatch strips from custom widgets (scripts, ``<iframe>``, ``<use>``).
"""

from __future__ import annotations
