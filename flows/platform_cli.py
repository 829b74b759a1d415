"""``scalper up``, ``down``, ``status``, ``doctor``: the platform's servers on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from flows.verbs import VerbMaker


def add(verb: VerbMaker) -> None:
    sub = verb("up", _up, "start Prefect, MLflow and the deployments on this machine, in the background",
               "scalper up --prefect-port 4200 --mlflow-port 5000")  # fmt: skip
    sub.add_argument("--prefect-port", type=int, default=4200)
    sub.add_argument("--mlflow-port", type=int, default=5000)
    sub.add_argument("--foreground", action="store_true", help="stay here; Ctrl-C stops all of it")

    verb("down", _down, "stop what `scalper up` started", "scalper down")

    sub = verb("status", _status, "what runs, what is due next, what failed, which version is where",
               "scalper status")  # fmt: skip

    sub = verb("doctor", _doctor, "prove that scheduler, pages and registry work, check by check",
               "scalper doctor")  # fmt: skip


def _up(args: argparse.Namespace) -> int:
    from flows import servers, supervisor
    from flows.platform import Ports

    ports = Ports(args.prefect_port, args.mlflow_port)
    if args.foreground:
        return supervisor.run(Path.cwd(), ports)
    state = servers.up(Path.cwd(), ports)
    print(f"Prefect  {state['prefect_url']}")
    print(f"MLflow   {state['mlflow_url']}")
    print("scalper status shows what is due, scalper doctor proves that it works, scalper down stops it")
    return 0


def _down(args: argparse.Namespace) -> int:
    from flows import servers

    print("stopped" if servers.down(Path.cwd()) else "the platform was not running")
    return 0


def _status(args: argparse.Namespace) -> int:
    from flows import status

    for text in status.lines(Path.cwd()):
        print(text)
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from flows import doctor

    findings = []
    for finding in doctor.examine(Path.cwd()):
        print(finding.line(), flush=True)
        findings.append(finding)
    return 0 if all(finding.sound for finding in findings) else 1
