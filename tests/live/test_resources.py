"""Past CPU/GPU/memory limits the runner goes into a simplified mode and back, with hysteresis."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live.config_schema import Monitoring
from live.core.events import PipelineMode
from live.modes import PipelineModes, Restriction
from live.resources import MachineProbe, Readings, ResourceGuard

LIMITS = {"cpu_pct": 90.0, "memory_pct": 90.0, "gpu_pct": 95.0, "gpu_memory_pct": 95.0}


def guard(samples: int = 3, hysteresis_pct: float = 10.0) -> ResourceGuard:
    return ResourceGuard(LIMITS, samples=samples, hysteresis_pct=hysteresis_pct)


@pytest.mark.parametrize("name", list(LIMITS))
def test_past_each_limit_the_runner_goes_into_a_simplified_mode_and_back(name: str) -> None:
    watch = guard()
    over, under = Readings(**{name: LIMITS[name] + 1}), Readings(**{name: LIMITS[name] - 10})
    changes = [watch.take(over) for _ in range(3)]
    assert changes[:2] == [None, None] and changes[2] is not None and changes[2].simplified
    assert name in changes[2].reason
    back = [watch.take(under) for _ in range(3)]
    assert back[:2] == [None, None] and back[2] is not None and not back[2].simplified


def test_there_is_hysteresis_between_the_limit_and_the_way_back() -> None:
    watch = guard(samples=1)
    assert watch.take(Readings(cpu_pct=91.0)) is not None
    for _ in range(50):
        assert watch.take(Readings(cpu_pct=85.0)) is None  # under the limit, not well under it
    assert watch.simplified
    assert watch.take(Readings(cpu_pct=80.0)) is not None


@given(st.lists(st.floats(0, 100), max_size=60))
def test_the_mode_never_changes_twice_within_so_many_samples(cpu: list[float]) -> None:
    watch = guard(samples=3)
    at = [n for n, value in enumerate(cpu) if watch.take(Readings(cpu_pct=value)) is not None]
    assert all(b - a >= 3 for a, b in pairwise(at))


def test_what_is_not_measured_limits_nothing() -> None:
    watch = guard(samples=1)
    assert watch.take(Readings()) is None
    assert not watch.simplified


def test_psutil_and_pynvml_are_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("psutil", "pynvml"):
        monkeypatch.setitem(sys.modules, name, None)
    probe = MachineProbe()
    assert probe.read() == Readings()
    assert "psutil" in probe.missing[0] and "nvidia-ml-py" in probe.missing[1]


def test_this_machine_is_measured() -> None:
    readings = MachineProbe().read()
    assert readings.memory_pct is not None and 0 < readings.memory_pct <= 100
    assert ResourceGuard.of(Monitoring()).take(Readings(memory_pct=50.0)) is None


def test_of_two_restrictions_the_stricter_counts_and_neither_undoes_the_other() -> None:
    posted: list[PipelineMode] = []
    modes = PipelineModes(posted.append, lambda: 7)
    modes.put("simplified", Restriction(("gbdt",), 500, 2), "busy")
    modes.put("gpu", Restriction((), 200), "the GPU failed")
    assert [(p.members, p.min_interval_ns) for p in posted] == [(("gbdt",), 500)]
    assert (modes.keep, modes.active) == (2, ("gpu", "simplified"))
    modes.drop("simplified", "quiet again")
    assert (posted[-1].members, posted[-1].min_interval_ns, modes.keep) == ((), 200, 0)
    modes.drop("gpu", "swapped")
    assert posted[-1].min_interval_ns == 0
    modes.drop("gpu", "twice")
    assert len(posted) == 3
