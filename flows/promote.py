"""The promotion flow: the gate's verdict as an artifact, and the alias moved or not.

``python -m flows.promote --to prod`` runs it without a standing server.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from flows import publishing
from flows.platform import prefect_environment

# Prefect reads its settings when it is first imported; what is already set wins.
for _name, _value in prefect_environment(Path.cwd()).items():
    os.environ.setdefault(_name, _value)
# isort: split
from prefect import flow, get_run_logger  # noqa: E402
from prefect.artifacts import create_table_artifact  # noqa: E402


@flow(name="promote", persist_result=False, retries=0)
def promote(workdir: str = ".", to: str = "prod", reason: str = "") -> dict[str, Any]:
    """Ask the gate, then move alias ``to`` to the version of the built bundle, or say why not."""
    promotion = publishing.promote(Path(workdir).resolve(), to, reason or "promote flow")
    create_table_artifact(
        key="gate-checks", table=promotion.verdict.rows(), description=promotion.verdict.headline()
    )
    get_run_logger().info(promotion.text())
    return {"alias": to, "moved": promotion.moved, "version": promotion.version}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.promote", description="run the promotion flow here, now"
    )
    parser.add_argument("--workdir", default=".", help="the project or a workspace")
    parser.add_argument("--to", default="prod")
    parser.add_argument("--reason", default="")
    args = parser.parse_args()
    promote(workdir=args.workdir, to=args.to, reason=args.reason)


if __name__ == "__main__":
    main()
