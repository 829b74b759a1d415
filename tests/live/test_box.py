"""What puts the runner on a box: the watchdog fed by progress, the systemd unit, the container file."""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from live import cli
from live.systemd import Systemd

ROOT = Path(__file__).resolve().parents[2]
BOX = ROOT / "docs" / "box"


class Manager:
    """The end of the socket that systemd reads."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.settimeout(60)
        self.environment = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "30000"}

    def read(self) -> str:
        return self._socket.recv(4096).decode()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path):
    one = Manager(tmp_path)
    yield one
    one.close()


def listen(manager: Manager, marks, until, status=str) -> list[str]:
    """What systemd hears while ``marks`` is watched, until ``until`` is true of it."""

    async def run() -> list[str]:
        heard: list[str] = []
        watching = asyncio.create_task(Systemd(manager.environment).watch(marks, status))
        while not until(heard):
            heard.append(await asyncio.to_thread(manager.read))
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        return heard

    return asyncio.run(run())


def test_progress_feeds_the_watchdog(manager):
    count = Counter()

    def marks():
        count["looks"] += 1
        return {"engine": count["looks"], "database": count["looks"] * 7}

    heard = listen(manager, marks, lambda heard: len(heard) == 3, lambda: "10 books\na second")
    assert set(heard) == {"WATCHDOG=1\nSTATUS=10 books a second"}


def test_a_process_that_lives_and_does_nothing_starves_it(manager):
    """Everything else moves, the event loop turns: it is not fed, and systemd is told what stands still."""
    count = Counter()

    def marks():
        count["looks"] += 1
        return {"engine": 4711, "status": count["looks"]}

    assert set(listen(manager, marks, lambda heard: len(heard) == 3)) == {"STATUS=no progress: engine"}


def test_it_is_fed_again_once_things_move(manager):
    count = Counter()

    def marks():
        count["looks"] += 1
        return {"engine": max(0, count["looks"] - 3)}

    heard = listen(manager, marks, lambda heard: bool(heard) and heard[-1].startswith("WATCHDOG=1"))
    assert heard[:-1] == ["STATUS=no progress: engine"] * 2


def test_who_waits_for_the_planned_start_is_not_restarted_and_who_stops_is_not_fed(manager):
    async def run() -> list[str]:
        told = Systemd(manager.environment)
        waiting = asyncio.create_task(told.wait())
        heard = [await asyncio.to_thread(manager.read) for _ in range(2)]
        waiting.cancel()
        told.stopping("SIGTERM received")
        await told.watch(lambda: {"engine": 1})  # ends by itself
        return heard

    assert asyncio.run(run()) == ["WATCHDOG=1", "WATCHDOG=1"]


def test_ready_and_stopping_are_told_in_one_line_each(manager):
    told = Systemd(manager.environment)
    told.ready("paper, prod v3\n[SIMULATED]")
    told.stopping("SIGTERM received")
    assert manager.read() == "READY=1\nSTATUS=paper, prod v3 [SIMULATED]"
    assert manager.read() == "STOPPING=1\nSTATUS=SIGTERM received"


def test_without_systemd_nothing_is_told_and_nothing_fails(tmp_path):
    for environment in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "x"}):
        one = Systemd(environment)
        assert one.watchdog_s == 0.0
        one.ready("x")
        asyncio.run(one.watch(dict))
        asyncio.run(one.wait())
    other = {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}
    assert Systemd(other, pid=2).watchdog_s == 0.0  # meant for another process
    assert Systemd(other, pid=1).watchdog_s == 30.0


# ---- the unit


@pytest.fixture(scope="module")
def unit() -> configparser.ConfigParser:
    found = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    found.optionxform = str
    found.read(BOX / "scalper.service")
    return found


def test_systemd_itself_takes_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    text = (BOX / "scalper.service").read_text()
    program = re.search(r"^ExecStart=(\S+)", text, re.M)
    path = tmp_path / "scalper.service"
    path.write_text(text.replace(program[1], "/bin/true"))
    checked = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
    # Where no manager of units is set up, verify complains about its own surroundings: only our lines count.
    assert "scalper.service" not in checked.stdout + checked.stderr, checked.stderr


def test_the_unit_starts_what_exists_and_restarts_what_a_restart_can_cure(unit):
    service = unit["Service"]
    program, *words = shlex.split(service["ExecStart"])
    args = cli._parser().parse_args(words)
    assert Path(program).name == "live-runner" and args.model == "prod" and args.config is not None
    assert service["Type"] == "notify" and float(service["WatchdogSec"]) >= 3 * 5.0  # status every 1-5 s
    assert service["RestartPreventExitStatus"] == "2"
    assert float(service["TimeoutStopSec"]) > 10 + 60  # winding down, the last copy
    writable = service["ReadWritePaths"].split()
    assert f"{service['WorkingDirectory']}/runtime" in writable and "/tmp" in writable


# ---- the container file


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, str]]:
    """(instruction, its words) of the container file."""
    text = re.sub(r"\\\n", " ", (BOX / "Containerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def copied(steps: list[tuple[str, str]]) -> list[tuple[str, str]]:
    found = []
    for word, rest in steps:
        if word == "COPY":
            *sources, target = rest.split()
            found += [(s, target + Path(s).name if target.endswith("/") else target) for s in sources]
    return found


def test_what_is_copied_into_the_image_is_all_that_the_runner_needs(steps, tmp_path):
    for source, target in copied(steps):
        at = tmp_path / target
        at.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, at, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, at)
    script = (
        "import sys; sys.path.insert(0, '.'); import live.cli, live.runner, live.health, live.dashboard, "
        "live.backtest_cli, live.record, live.explain, live.metrics, live.notify.commands\n"
        "names = ('live', 'market', 'features', 'models')\n"
        "found = [m.__file__ for n, m in sys.modules.items() if n.split('.')[0] in names and m.__file__]\n"
        "print(len(found)); print(*[f for f in found if not f.startswith(sys.argv[1])])"
    )
    # NUMBA_DISABLE_JIT: what can be imported is the question, not how fast it would be.
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True,
        env={"PATH": "", "NUMBA_DISABLE_JIT": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    count, *elsewhere = done.stdout.split()
    assert int(count) > 80 and not elsewhere


def test_the_image_runs_as_nobody_special_and_asks_itself_how_it_is(steps):
    words = dict(steps)
    assert words["USER"] != "root" and words["STOPSIGNAL"] == "SIGTERM"
    assert [word for word, _ in steps].index("USER") > max(
        n for n, (word, _) in enumerate(steps) if word == "RUN"
    )
    check = re.search(r"CMD \[(.*)\]", words["HEALTHCHECK"])[1]
    program, *arguments = re.findall(r'"([^"]*)"', check)
    assert program == "live-runner" and cli._parser().parse_args(arguments).check
    assert cli._parser().parse_args(re.findall(r'"([^"]*)"', words["CMD"])).model == "prod"
    secrets = ("keys", "runtime", ".git", ".venv", "data", "artifacts")
    assert not [source for source, _ in copied(steps) if source.split("/")[0] in secrets]
