"""The platform's doing: DVC stage entry points, Prefect flows, and the ``scalper`` command.

Importing anything from here first turns off what the tools would otherwise send to their makers; a value that
is already set in the environment wins.
"""

from __future__ import annotations

import os

QUIET_TOOLS = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}

for _name, _value in QUIET_TOOLS.items():
    os.environ.setdefault(_name, _value)
