"""Turns off what libraries would report to their makers, or write down to report it later. Sets variables; imports no library.

onnxruntime keeps a device id and a database of events under the user's cache unless its variable is set before it is imported; its
own call to disable events does not prevent that. Processes inherit the variables from those that start them.
"""

from __future__ import annotations

import os

_VARIABLES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "OLIVE_DISABLE_TELEMETRY")


def turn_off_telemetry() -> None:
    """Turns the telemetry of libraries off. Call it first in a program."""
    for name in _VARIABLES:
        os.environ[name] = "1"
