"""From a built bundle to a registered version: outside the DAG and idempotent.

Plain functions on a folder (the project or a workspace); the ``scalper`` command, the demo and the Prefect
flows call them. Aliases move in ``flows.promotion``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from flows import card_cli
from flows.identity import PROJECT, file_sha256, git_state, value_sha256
from flows.params import PARAMS
from flows.platform import registry_settings
from flows.signing import KEYS, PUBLIC, signed_bundle
from flows.stages.common import BACKTEST, BUNDLE
from models.bundle import Bundle

LOCK = Path("dvc.lock")
PLOTS = Path("artifacts/plots")
BESIDE = (BACKTEST / "report.html", LOCK, Path(PARAMS))
"""Kept in the run of a version, with the pictures of ``dvc plots show``: the backtest, and what ``dvc pull``
needs to bring back everything that led to it (docs/decisions/0006-the-lock-is-kept-with-the-version.md)."""


@dataclass(frozen=True, slots=True)
class Published:
    """A registered version of the built bundle."""

    version: int
    manifest_sha256: str
    watermark: str

    def line(self) -> str:
        return f"published {self.watermark} bundle {self.manifest_sha256[:12]} as version {self.version}"


def store(workdir: Path) -> str:
    """The registry's address for ``workdir``: the store of ``mlflow/registry.yaml`` (or what SCALPER_REGISTRY
    names), made absolute."""
    uri = registry_settings(workdir=workdir)["registry"]
    prefix = "sqlite:///"
    if not uri.startswith(prefix):
        return uri
    return f"{prefix}{(workdir / uri.removeprefix(prefix)).resolve()}"


def publish(workdir: Path, *, flow_run: str = "") -> Published:
    """Register ``artifacts/bundle``; a bundle that is registered already keeps its version.

    The signature is verified first, and renewed where it is missing or of another key. ``flow_run``: the
    Prefect run that asks, kept with the lineage.
    """
    from models import registry

    uri = store(workdir)
    bundle = signed_bundle(workdir / BUNDLE, workdir / KEYS)
    beside = [path for name in BESIDE if (path := workdir / name).is_file()]
    number = registry.publish(
        bundle.path, uri=uri, tags=lineage(workdir, bundle, flow_run), public_key_path=workdir / PUBLIC,
        attachments=[*beside, *sorted((workdir / PLOTS).glob("*.svg")), *card_cli.for_registry(workdir)],
    )  # fmt: skip
    if uri.startswith("sqlite:"):
        # Registered once for each manifest, so perhaps under a key that has been replaced since.
        signed_bundle(registry.local_path(uri, number), workdir / KEYS)
    return Published(number, bundle.sha256, bundle.watermark)


def lineage(workdir: Path, bundle: Bundle, flow_run: str = "") -> dict[str, str]:
    """Where a bundle comes from: git, the lock of the line, parameters. (Data and code hashes are in its
    manifest.)"""
    return {
        **git_state(PROJECT),
        "dvc.lock": file_sha256(workdir / LOCK),
        "params.hash": value_sha256(bundle.manifest["params"]),
        "prefect.flow_run": flow_run or "none: published by hand",
    }


def aliases(workdir: Path) -> dict[str, int]:
    """Version number by alias."""
    from models import registry

    return registry.aliases(store(workdir))


def number_of(workdir: Path, which: int | str) -> int:
    """The number of a version named by number or alias."""
    from models import registry

    return registry.version(store(workdir), which).number


def journal(workdir: Path) -> Path:
    """``promotions.jsonl`` of this folder's registry: beside the database, or in ``runtime/mlflow`` where the
    registry is a server."""
    from models import registry

    uri = store(workdir)
    if uri.startswith("sqlite:"):
        return registry.journal_path(uri)
    return workdir / "runtime" / "mlflow" / registry.JOURNAL


def page_of(workdir: Path, version: int) -> str:
    """The version's page in MLflow's UI, where the platform tells which address that has; empty without a
    platform, or where ``workdir`` has a registry of its own that the platform's server does not show."""
    ui = os.environ.get("SCALPER_MLFLOW_UI", "")
    if store(workdir) != store(Path.cwd()):
        return ""
    return f"{ui}/#/models/{registry_settings()['model']}/versions/{version}" if ui else ""
