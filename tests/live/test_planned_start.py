"""What a start waits for: `system.startup_time`, and a clock behind its checkpoint. It says so and can be
stopped.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from live.audit import read
from live.config import seconds_until
from live.config_schema import RunnerConfig
from live.core.engine import MAX_AHEAD_NS
from live.notify import Notifier
from live.runner import Options, Runner
from live.session import Session
from live.takeover import Checkpoint
from market.errors import RegistryError
from market.types import SECOND_NS

ZONE = "Europe/Moscow"


def configured(tmp_path: Path, startup: str) -> RunnerConfig:
    blank = RunnerConfig()
    return replace(
        blank,
        system=replace(blank.system, runtime_dir=str(tmp_path / "runtime"), startup_time=startup),
        model=replace(blank.model, registry=f"sqlite:///{tmp_path}/absent.db"),
    )


def clock(ahead: timedelta) -> str:
    return (datetime.now(ZoneInfo(ZONE)) + ahead).strftime("%H:%M:%S")


def events(tmp_path: Path) -> list[str]:
    return [line.event for line in read(tmp_path / "runtime" / "audit.log")]


def test_planned_start_the_runner_waits_until_then_and_can_be_stopped_while_it_waits(tmp_path: Path) -> None:
    async def run() -> int:
        runner = Runner(configured(tmp_path, clock(timedelta(hours=2))), Options("prod", quiet=True))
        asyncio.get_running_loop().call_later(0.2, runner.request_stop, "SIGTERM received")
        return await runner.run()

    assert asyncio.run(run()) == 0
    assert events(tmp_path) == ["STARTUP_PLANNED", "STARTUP_CANCELLED"]


def test_when_the_time_has_come_it_starts(tmp_path: Path) -> None:
    runner = Runner(configured(tmp_path, clock(timedelta(seconds=2))), Options("prod", quiet=True))
    with pytest.raises(RegistryError):  # it got as far as the registry, which is not there
        asyncio.run(runner.run())
    assert events(tmp_path) == ["STARTUP_PLANNED", "STARTUP_TIME_REACHED"]


def behind(tmp_path: Path, excess_s: float, stop: bool = False) -> tuple[bool, list[str], list[str]]:
    """A start whose checkpoint is so much further ahead of the clock than is taken without a word: (it goes
    on, what the audit has, what people are told).
    """
    blank = configured(tmp_path, "10:00")
    settings = replace(blank, system=replace(blank.system, mode="sandbox"))
    told: list[str] = []

    async def run() -> bool:
        notifier = Notifier(settings.notifications)
        notifier.send = lambda text, *rest: told.append(text)  # type: ignore[method-assign,assignment]
        session = Session(settings, Options("prod"), notifier)
        ahead_ns = MAX_AHEAD_NS + round(excess_s * SECOND_NS)
        session.restored = Checkpoint({"now_ns": time.time_ns() + ahead_ns})
        runner = Runner(settings, session.options)
        if stop:
            asyncio.get_running_loop().call_later(0.2, runner.request_stop, "SIGTERM received")
        try:
            return await runner._wait_for_clock(session)
        finally:
            session.audit.close()
            notifier.close()

    goes_on = asyncio.run(run())
    return goes_on, events(tmp_path) if (tmp_path / "runtime" / "audit.log").exists() else [], told


def test_a_start_waits_for_a_clock_a_little_behind_its_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    goes_on, audited, told = behind(tmp_path, 1.5)
    assert goes_on and time.monotonic() - began > 1.0
    assert audited == ["CLOCK_WAIT", "CLOCK_WAIT_OVER"]
    assert [text.partition(":")[0] for text in told] == audited
    assert "waiting for the clock to reach the checkpoint" in capsys.readouterr().out


def test_a_start_that_waits_for_the_clock_can_be_stopped(tmp_path: Path) -> None:
    assert behind(tmp_path, 270.0, stop=True)[:2] == (False, ["CLOCK_WAIT", "STARTUP_CANCELLED"])


@pytest.mark.parametrize("excess_s", [-31.0, -1.0, 3700.0])
def test_a_clock_that_is_right_or_hopeless_is_not_waited_for(tmp_path: Path, excess_s: float) -> None:
    """The hopeless one is refused when the checkpoint is restored."""
    assert behind(tmp_path, excess_s) == (True, [], [])


@pytest.mark.parametrize(
    ("startup", "now", "seconds"),
    [
        ("10:00", "09:59:30", 30.0),
        ("10:00", "10:00:00", 0.0),
        ("10:00", "10:59:59", 0.0),  # a late start is that start
        ("10:00", "11:00:00", 23 * 3600.0),  # tomorrow's
        ("23:30", "00:10:00", 0.0),  # planned before midnight, started after it
    ],
)
def test_a_start_within_an_hour_after_the_time_does_not_wait_for_tomorrow(
    startup: str, now: str, seconds: float
) -> None:
    today = datetime.fromisoformat(f"2026-01-15T{now}").replace(tzinfo=ZoneInfo(ZONE))
    assert seconds_until(startup, ZONE, today) == seconds
