"""The official Python SDK, unmodified, against a running paper exchange: a table of what works.

    python tools/sdk_interop.py --endpoint runtime/paper/endpoint.json

Run it with an interpreter that has the SDK (module ``t_tech.invest`` or ``tinkoff.invest``), which lives in
an environment of its own: this file imports nothing of the project. Start the exchange with the project's
Python first: ``python -m market.paper --recording data/recording --speed 5``. The exit code is 0 when every
step passed, 1 when one failed, 2 when the SDK or the exchange is missing. ``absent`` marks a method that the
exchange answers with 12001 (not implemented); it fails only a step that trading needs.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.metadata
import json
import logging
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import sdk_order_steps  # noqa: F401 (its steps register themselves, after those of sdk_steps)
from sdk_steps import CANCELLED, STEPS, Run

MODULES = ("t_tech.invest", "tinkoff.invest")
HOW_TO_GET = """\
The official SDK is not importable here (looked for the modules t_tech.invest and tinkoff.invest).
It is the package t-tech-investments on the broker's own index, installed into an environment of its own:

  python -m venv sdkenv
  sdkenv/bin/pip install --index-url https://opensource.tbank.ru/api/v4/projects/238/packages/pypi/simple \\
      --no-deps t-tech-investments
  sdkenv/bin/pip install grpcio 'protobuf<6' 'cachetools<6' 'python-dateutil<3' deprecation
  sdkenv/bin/python tools/sdk_interop.py --endpoint runtime/paper/endpoint.json

Never ask PyPI for t-tech-investments, tinkoff-investments or tinkoff: the broker does not publish there, so
whoever registers those names decides what such a command installs."""
STEP_TIMEOUT_S = 20.0


# ---- the table ----


async def run_steps(run: Run) -> int:
    rows: list[tuple[str, str, str, float]] = []
    failed = 0
    async with run.package.AsyncClient(run.endpoint["token"], target=run.endpoint["target"]) as client:
        run.client = client
        for name, calls, needed, body in STEPS:
            started = time.perf_counter()
            try:
                result, verdict = await asyncio.wait_for(body(run), STEP_TIMEOUT_S), "ok"
            except asyncio.CancelledError as error:  # the SDK's streams end so on protobuf 6 and 7
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                verdict, result = _verdict(error, needed)
                failed += 1
            except Exception as error:  # noqa: BLE001 - the table is where failures are told
                verdict, result = _verdict(error, needed)
                failed += verdict == "FAIL"
            rows.append((name, calls, f"{verdict}: {result}", (time.perf_counter() - started) * 1000))
        for task in run.tasks:
            task.cancel()
        await asyncio.gather(*run.tasks, return_exceptions=True)
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    print(f"{'step':<{widths[0]}}  {'called':<{widths[1]}}  {'result':<{widths[2]}}       ms")
    for name, calls, result, ms in rows:
        print(f"{name:<{widths[0]}}  {calls:<{widths[1]}}  {result:<{widths[2]}}  {ms:7.1f}")
    passed = sum(row[2].startswith("ok") for row in rows)
    print(f"{passed} of {len(rows)} passed, {failed} failed, {len(rows) - passed - failed} absent")
    return 1 if failed else 0


def _verdict(error: BaseException, needed: bool) -> tuple[str, str]:
    details = str(getattr(error, "details", "") or "")
    if details == "12001" and not needed:
        return "absent", "12001 not implemented"
    if isinstance(error, asyncio.CancelledError):
        return "FAIL", CANCELLED
    if isinstance(error, asyncio.TimeoutError):
        return "FAIL", f"nothing for {STEP_TIMEOUT_S:.0f} s"
    metadata = getattr(error, "metadata", None)
    text = f"{details} {getattr(metadata, 'message', '') or ''}".strip() or str(error)
    return "FAIL", f"{type(error).__name__}: {text}"[:160]


def find_sdk() -> tuple[Any, Any, Any] | None:
    """The package, its schemas and its exceptions."""
    for name in MODULES:
        try:
            parts = [importlib.import_module(name + part) for part in ("", ".schemas", ".exceptions")]
            return parts[0], parts[1], parts[2]
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--endpoint", type=Path, default=Path("runtime/paper/endpoint.json"), metavar="FILE",
                        help="written by `python -m market.paper`")  # fmt: skip
    arguments = parser.parse_args()
    try:
        endpoint = json.loads(arguments.endpoint.read_text("utf-8"))
    except (OSError, ValueError) as error:
        print(f"no paper exchange: {arguments.endpoint} cannot be read ({error}); "
              "start `python -m market.paper --recording DIR`", file=sys.stderr)  # fmt: skip
        return 2
    # gRPC reads this once, when the process makes its first TLS channel; the SDK has no other way.
    os.environ["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"] = endpoint["ca_path"]
    found = find_sdk()
    if found is None:
        print(HOW_TO_GET, file=sys.stderr)
        return 2
    name = found[0].__name__
    logging.getLogger(name).setLevel(logging.CRITICAL)  # it logs every refusal as an error
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("protobuf", "grpcio"))
    print(f"{name} on Python {platform.python_version()}, {versions}; exchange at {endpoint['target']}")
    return asyncio.run(run_steps(Run(*found, endpoint)))


if __name__ == "__main__":
    sys.exit(main())
