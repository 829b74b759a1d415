"""The resource monitor: CPU, memory and GPU against their limits, and the simplified mode with hysteresis.

psutil and pynvml (package nvidia-ml-py) are optional: what cannot be measured is shown as None and limits
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from live.config_schema import Monitoring


@dataclass(frozen=True, slots=True)
class Readings:
    """Per cent of the machine; None: not measured here."""

    cpu_pct: float | None = None
    memory_pct: float | None = None
    gpu_pct: float | None = None
    gpu_memory_pct: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        return {
            "cpu_pct": self.cpu_pct, "memory_pct": self.memory_pct,
            "gpu_pct": self.gpu_pct, "gpu_memory_pct": self.gpu_memory_pct,
        }  # fmt: skip


class Probe(Protocol):
    def read(self) -> Readings: ...


class MachineProbe:
    """The machine as psutil and the NVIDIA driver see it. ``missing`` says what cannot be measured."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self._psutil = self._import_psutil()
        self._nvml, self._gpu = self._open_gpu()
        if self._psutil is not None:
            self._psutil.cpu_percent()  # the first answer of psutil means nothing

    def _import_psutil(self) -> Any:
        try:
            import psutil
        except ImportError:
            self.missing.append("psutil is not installed: CPU and memory are not watched")
            return None
        return psutil

    def _open_gpu(self) -> tuple[Any, Any]:
        try:
            import pynvml
        except ImportError:
            self.missing.append("nvidia-ml-py is not installed: no GPU is watched")
            return None, None
        try:
            pynvml.nvmlInit()
            return pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)
        except pynvml.NVMLError as error:
            self.missing.append(f"no GPU is watched: {error}")
            return None, None

    def read(self) -> Readings:
        cpu = memory = gpu = gpu_memory = None
        if self._psutil is not None:
            cpu, memory = float(self._psutil.cpu_percent()), float(self._psutil.virtual_memory().percent)
        if self._nvml is not None:
            try:
                used = self._nvml.nvmlDeviceGetMemoryInfo(self._gpu)
                gpu = float(self._nvml.nvmlDeviceGetUtilizationRates(self._gpu).gpu)
                gpu_memory = 100.0 * used.used / used.total
            except self._nvml.NVMLError as error:
                self.missing.append(f"the GPU is not watched any more: {error}")
                self._nvml = None
        return Readings(cpu, memory, gpu, gpu_memory)


@dataclass(frozen=True, slots=True)
class ModeChange:
    """Into the simplified mode, or back. ``reason``: the readings that decided."""

    simplified: bool
    reason: str


class ResourceGuard:
    """``samples`` readings in a row over a limit switch the simplified mode on; as many with every reading
    at least ``hysteresis_pct`` under its limit switch it off.
    """

    def __init__(self, limits: Mapping[str, float], *, samples: int, hysteresis_pct: float) -> None:
        self._limits, self._samples, self._hysteresis = dict(limits), samples, hysteresis_pct
        self.simplified = False
        self.last = Readings()
        self._run = 0

    @classmethod
    def of(cls, monitoring: Monitoring) -> ResourceGuard:
        limits = {
            "cpu_pct": monitoring.max_cpu_pct, "memory_pct": monitoring.max_memory_pct,
            "gpu_pct": monitoring.max_gpu_pct, "gpu_memory_pct": monitoring.max_gpu_memory_pct,
        }  # fmt: skip
        return cls(
            limits, samples=monitoring.resource_samples, hysteresis_pct=monitoring.resource_hysteresis_pct
        )

    def take(self, readings: Readings) -> ModeChange | None:
        """One reading; the change of mode that it completes, if any."""
        self.last = readings
        measured = {name: value for name, value in readings.to_dict().items() if value is not None}
        over = {n: v for n, v in measured.items() if v > self._limits[n]}
        well_under = all(v <= self._limits[n] - self._hysteresis for n, v in measured.items())
        self._run = self._run + 1 if (well_under if self.simplified else over) else 0
        if self._run < self._samples:
            return None
        self._run = 0
        self.simplified = not self.simplified
        if self.simplified:
            return ModeChange(True, ", ".join(f"{n} {v:.0f} > {self._limits[n]:g}" for n, v in over.items()))
        return ModeChange(False, ", ".join(f"{n} {v:.0f}" for n, v in measured.items()))
