"""`system.startup_time`: the runner waits until then, says so, and can be stopped while it waits."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from live.audit import read
from live.config import seconds_until
from live.config_schema import RunnerConfig
from live.runner import Options, Runner
from market.errors import RegistryError

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
