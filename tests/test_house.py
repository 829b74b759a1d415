"""The rules of the house, checked for real: who imports whom, the lean boundary, what DVC must know about the
code."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("market", "features", "models", "live", "flows")
HEAVY = (
    "torch", "tensorflow", "keras", "pandas", "sklearn", "prefect", "dvc", "evidently", "optuna", "mlflow",
    "dask", "distributed", "matplotlib",
)  # fmt: skip


RUN_BY = {"quantise": {"models.export"}}
"""Modules that a stage starts as a process, which no import shows."""


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def test_import_contracts() -> None:
    checked = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "0 broken" in checked.stdout


def test_the_runner_loads_nothing_heavy() -> None:
    # A contract reads source text; this looks at what one process really loads.
    script = (
        "import sys, live.cli, live.runner\n"
        f"loaded = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "print(*(m for m in loaded if sys.modules[m].__file__))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split() == []


def test_the_mlflow_folder_holds_no_code() -> None:
    folder = ROOT / "mlflow"
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == [
        "README.md",
        "compose.yaml",
        "registry.yaml",
        "server.env",
    ]
    assert not list(folder.rglob("*.py"))
    found = subprocess.run(
        [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('mlflow').origin)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "site-packages" in found.stdout


def _pipeline() -> dict[str, dict]:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def _file_of(module: str) -> str:
    base = ROOT.joinpath(*module.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("stage", sorted(_pipeline()))
def test_each_stage_names_all_code_that_it_runs(stage: str, graph: grimp.ImportGraph) -> None:
    # A forgotten one would leave stale outputs without a word. Empty __init__ files cannot change a result.
    deps = [d for d in _pipeline()[stage]["deps"] if not d.startswith(("data/", "artifacts/", "$"))]
    module = f"flows.stages.{stage}"
    needed = {_file_of(m) for m in graph.find_upstream_modules(module) | {module} | RUN_BY.get(stage, set())}
    needed = {path for path in needed if ast.parse((ROOT / path).read_text()).body[1:]}
    missing = sorted(p for p in needed if not any(p == d or p.startswith(f"{d}/") for d in deps))
    assert not missing, f"dvc.yaml, stage {stage}: deps lack {missing}"
    assert not [d for d in deps if not (ROOT / d).exists()]


def test_each_stage_is_a_module_and_says_what_it_runs() -> None:
    for stage, spec in _pipeline().items():
        assert spec["cmd"] == f"python -m flows.stages.{stage}"
        assert (ROOT / "flows" / "stages" / f"{stage}.py").is_file()


def test_each_parameter_that_dvc_watches_exists() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for stage, spec in _pipeline().items():
        for key in spec.get("params", []):
            node = params
            for part in key.split("."):
                assert part in node, f"{stage}: params.yaml has no {key}"
                node = node[part]


def test_dvc_never_calls_home_and_never_touches_git() -> None:
    config = (ROOT / ".dvc" / "config").read_text()
    for setting in ("analytics = false", "check_update = false", "autostage = false"):
        assert setting in config


def test_locks_pin_what_the_project_asks_for() -> None:
    pins = {
        line.split("==")[0]: line.split("==")[1].strip()
        for line in (ROOT / "requirements" / "platform.lock").read_text().splitlines()
        if "==" in line and not line.startswith(("#", " "))
    }
    assert not [name for name, version in pins.items() if "+" in version], (
        "a local version exists on one machine only"
    )
    live = (ROOT / "requirements" / "live.lock").read_text()
    assert not [name for name in HEAVY if f"\n{name}==" in live]
    for name in ("prefect", "mlflow", "dvc", "evidently", "optuna"):
        assert importlib.metadata.version(name) == pins[name]
