"""``make demo``: the whole line in front of one's eyes, from a market to a trading runner, in numbered and
timed steps.

On the project's own simulated market, or on a recording in a workspace of its own. Everything that is started
is ended again, however the demo ends.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows import line, summary, workspace
from flows.identity import PROJECT
from flows.interrupt import interruptible
from flows.signing import ensure_keys
from market.errors import ConfigError, ScalperError

RUNTIME = Path("runtime/demo")
CONFIG = RUNTIME / "live.yaml"
ENDPOINT = RUNTIME / "paper" / "endpoint.json"
REPORT = Path("artifacts/backtest/report.html")
EXCHANGE_START_S = 60.0
STEPS = 4


class DemoFailed(ScalperError):
    """A part of the demo ended with an error of its own, which was shown above."""

    exit_code = 1


@dataclass(slots=True)
class Steps:
    """Numbered headings with the time since the start."""

    begun: float = field(default_factory=time.monotonic)
    number: int = 0

    def next(self, text: str) -> None:
        self.number += 1
        print(f"\n==> {self.number}/{STEPS}  {text}", flush=True)

    def done(self) -> None:
        print(f"    ({_clock(time.monotonic() - self.begun)} since the start)", flush=True)


def run(*, recording: Path | None, minutes: float | None, speed: float, overrides: Mapping[str, Any]) -> int:
    """The demo; returns the exit status. Raises ScalperError with one sentence for expected failures."""
    if speed <= 0:
        raise ConfigError(f"--speed {speed:g}: market seconds per second must be above 0")
    if minutes is not None and minutes <= 0:
        raise ConfigError(f"--minutes {minutes:g}: must be above 0")
    with interruptible():
        workdir = _place(recording, overrides)
        steps = Steps()
        steps.next("the line, from a market to a signed bundle (dvc repro)")
        _repro(workdir)
        steps.done()
        steps.next("the registry and the gate (scalper publish, scalper promote --to prod)")
        alias = _promote(workdir)
        steps.done()
        steps.next(f"live-runner --model {alias} on the paper exchange, {speed:g} market seconds a second")
        session = _trade(workdir, alias, minutes, speed)
        steps.done()
        steps.next("what happened")
        _tell(workdir, alias, session)
        steps.done()
    return 0


def _place(recording: Path | None, overrides: Mapping[str, Any]) -> Path:
    """The folder to work in: the project itself, or a workspace for a recording or other parameters."""
    if recording is None and not overrides:
        return PROJECT
    name = workspace.name_for(recording) if recording is not None else "demo"
    folder = workspace.create(PROJECT / workspace.WORKSPACES / name, source=recording, overrides=overrides)
    print(
        f"workspace {folder.relative_to(PROJECT)}: the project's own parameters and results stay as they are"
    )
    return folder


def _repro(workdir: Path) -> None:
    private, public = workdir / "keys" / "signing.key", workdir / "keys" / "signing.pub"
    if not private.exists() and not public.exists():
        ensure_keys(workdir / "keys")
        print("    made keys/signing.key and keys/signing.pub (the private key stays on this machine)")
    begun = time.monotonic()

    def tell(text: str) -> None:
        if text.startswith("Running stage '"):
            print(f"  [{time.monotonic() - begun:5.1f} s] {text.split(chr(39))[1]}", flush=True)
        elif text.startswith("Stage '") and ("skipping" in text or "checking out" in text):
            how = "unchanged" if "didn't change" in text else "taken from the cache"
            print(f"  [{time.monotonic() - begun:5.1f} s] {text.split(chr(39))[1]}: {how}", flush=True)
        else:
            print(text, flush=True)

    line.repro(workdir, on_line=tell)


def _promote(workdir: Path) -> str:
    """Publish and ask the gate; the alias that the runner will follow."""
    from flows import promotion, publishing

    print(f"    {publishing.publish(workdir).line()}", flush=True)
    prod = promotion.promote(workdir, "prod", "demo", climb=True)
    print(_indented(prod.text()), flush=True)
    if prod.moved:
        return "prod"
    print(
        "    so it goes to the alias shadow: same runner, signals and would-be orders recorded, nothing sent"
    )
    shadow = promotion.promote(workdir, "shadow", "demo: the gate refused prod", climb=True)
    print(_indented(shadow.text()), flush=True)
    if not shadow.moved:
        raise DemoFailed("the gate does not even let the model run as shadow; its reasons stand above")
    return "shadow"


def _trade(workdir: Path, alias: str, minutes: float | None, speed: float) -> dict[str, Any]:
    """Paper exchange and runner, to the end of the block that the line has never seen; the session's
    summary."""
    from_ns, to_ns = _live_block(workdir)
    if minutes is not None:
        to_ns = min(to_ns, from_ns + round(minutes * 6e10))
    shutil.rmtree(
        workdir / RUNTIME, ignore_errors=True
    )  # a new exchange account starts with a new runner state
    (workdir / ENDPOINT).parent.mkdir(parents=True)
    python = sys.executable
    _configure(workdir)
    wall = (to_ns - from_ns) / 1e9 / speed
    print(
        f"    {(to_ns - from_ns) / 6e10:.1f} minutes of market that nothing was fitted on: about {wall:.0f} s"
    )
    with ExitStack() as stack:
        log = stack.enter_context((workdir / RUNTIME / "paper" / "exchange.log").open("w", encoding="utf-8"))
        exchange = stack.enter_context(
            line.started(
                [
                    python, "-m", "market.paper", "--recording", "data/recording",
                    "--endpoint", str(ENDPOINT),
                    "--from-ns", str(from_ns), "--to-ns", str(to_ns), "--speed", f"{speed:g}",
                ],
                cwd=workdir, stdout=log,
            )
        )  # fmt: skip
        _wait_for_exchange(exchange, workdir)
        status = line.run(
            [python, "-m", "live.cli", "--config", str(CONFIG), "--model", alias],
            cwd=workdir,
            on_line=_echo,
        )
    found = sorted((workdir / RUNTIME).glob("session/*/summary.json"))
    if status != 0 or not found:
        raise DemoFailed(
            f"live-runner ended with status {status}; its audit log is {RUNTIME}/audit.log in {workdir}"
        )
    session: dict[str, Any] = json.loads(found[-1].read_text(encoding="utf-8"))
    return session


def _configure(workdir: Path) -> None:
    """``runtime/demo/live.yaml``: the runner's own commented template with this demo's places filled in."""
    from ruamel.yaml import YAML

    from live import config_template

    path = workdir / CONFIG
    config_template.write("paper", path)
    yaml = YAML()  # keeps the comments
    yaml.preserve_quotes = True
    yaml.width = 200
    tree = yaml.load(path)
    for key, value in {
        "system.runtime_dir": RUNTIME,
        "storage.path": RUNTIME / "scalper.db",
        "manual_override.flag_path": RUNTIME / "manual_override.flag",
        "reporting.report_path": RUNTIME / "reports" / "performance.jsonl",
        "paper.endpoint": ENDPOINT,
    }.items():
        section, name = key.split(".")
        tree[section][name] = str(value)
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(tree, file)


def _wait_for_exchange(exchange: subprocess.Popen[str], workdir: Path) -> None:
    deadline = time.monotonic() + EXCHANGE_START_S
    while not (workdir / ENDPOINT).exists():
        if exchange.poll() is not None or time.monotonic() > deadline:
            log = (
                (workdir / RUNTIME / "paper" / "exchange.log")
                .read_text(encoding="utf-8")
                .strip()
                .splitlines()
            )
            raise DemoFailed(f"the paper exchange did not start: {log[-1] if log else 'no message'}")
        time.sleep(0.05)


def _live_block(workdir: Path) -> tuple[int, int]:
    blocks = json.loads((workdir / "data" / "labels" / "blocks.json").read_text(encoding="utf-8"))["blocks"]
    (block,) = [(int(a), int(b)) for name, a, b in blocks if name == "live"]
    return block


def _tell(workdir: Path, alias: str, session: Mapping[str, Any]) -> None:
    manifest = json.loads((workdir / "artifacts" / "bundle" / "manifest.json").read_text(encoding="utf-8"))
    mark = summary.simulated(manifest["watermark"])
    print(_indented(f"model (alias {alias}); scores on block calibrate, lower log-loss is better{mark}"))
    print(_indented("\n".join(summary.models_table(manifest))))
    print(_indented(summary.edge_line(manifest)))
    print()
    print(_indented("\n".join(summary.session_lines(session))))
    here = "." if workdir == PROJECT else str(workdir.relative_to(PROJECT))
    scalper = "scalper" if here == "." else f"scalper -C {here}"
    enter = "" if here == "." else f"cd {here} && "
    runner = f"{PROJECT / '.venv/bin/live-runner'}" if enter else ".venv/bin/live-runner"
    print(
        f"""
    where to look next
      the backtest as a page   {here}/{REPORT}
      the session as a page    {enter}{runner} dashboard --config {CONFIG}
      the audit log            {here}/{RUNTIME}/audit.log
      why (not) prod           .venv/bin/{scalper} gate
      Prefect and MLflow UIs   {"make platform" if here == "." else f".venv/bin/{scalper} up"}""",
        flush=True,
    )


def _indented(text: str) -> str:
    return "\n".join(f"    {row}" for row in text.splitlines())


def _echo(text: str) -> None:
    if not text.startswith(line.NOISE):
        print(f"    {text}", flush=True)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
