"""A few questions to the Prefect server, with nothing but the standard library: ``status`` and ``doctor``
must answer in a second, and Prefect takes longer to import."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from market.errors import ScalperError

TIMEOUT_S = 15.0
BUSY_PAUSES_S = (0.5, 1.0, 2.0, 4.0)


def post(api: str, path: str, body: dict[str, Any]) -> Any:
    """The JSON answer of ``POST <api>/<path>``; ScalperError where the server does not answer."""
    request = urllib.request.Request(
        f"{api}/{path}", data=json.dumps(body).encode(), headers={"content-type": "application/json"},
        method="POST",
    )  # fmt: skip
    for pause_s in (*BUSY_PAUSES_S, None):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
                text = reply.read()
            return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(500).decode("utf-8", "replace")
            # 503 is its database being busy (SQLite lets one write at a time): that passes.
            if error.code != 503 or pause_s is None:
                raise ScalperError(f"the Prefect server {api} answered {error.code}: {said}") from None
            time.sleep(pause_s)
        except OSError as error:
            raise ScalperError(
                f"the Prefect server {api} does not answer ({error}): start it with `scalper up`, or see "
                "`scalper status`"
            ) from None
    raise AssertionError("unreachable")


def deployments(api: str) -> dict[str, dict[str, Any]]:
    """By name."""
    return {str(found["name"]): found for found in post(api, "deployments/filter", {})}


def runs(api: str, states: Sequence[str], *, limit: int = 20) -> list[dict[str, Any]]:
    """Runs in any of the states, the newest first."""
    return list(post(api, "flow_runs/filter", {
        "flow_runs": {"state": {"type": {"any_": list(states)}}},
        "sort": "EXPECTED_START_TIME_DESC", "limit": limit,
    }))  # fmt: skip


def due(api: str, deployment_id: str) -> dict[str, Any] | None:
    """The next scheduled run of a deployment."""
    found = post(api, "flow_runs/filter", {
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}, "deployment_id": {"any_": [deployment_id]}},
        "sort": "EXPECTED_START_TIME_ASC", "limit": 1,
    })  # fmt: skip
    return found[0] if found else None


def start(api: str, deployment: str, parameters: dict[str, Any] | None = None) -> str:
    """Ask for a run of a deployment now; returns its id."""
    known = deployments(api)
    if deployment not in known:
        raise ScalperError(
            f"there is no deployment {deployment!r}; there: {', '.join(sorted(known)) or 'none'}"
        )
    body = {"parameters": parameters or {}, "state": {"type": "SCHEDULED"}}
    return str(post(api, f"deployments/{known[deployment]['id']}/create_flow_run", body)["id"])


def when(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC) if text else None
