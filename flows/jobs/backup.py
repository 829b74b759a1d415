"""Backup: a snapshot, checked by bringing it back, and the oldest ones dropped."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from flows import backup as backups
from flows import restore
from flows.job import create_table_artifact, get_run_logger, job

REMEDY = (
    "there is no new snapshot; those before it are whole. A full disk: free space or name another folder. "
    "A key error: see keys/backup.key. Then run this deployment again."
)


@job("backup", todo=REMEDY, max_late_s=12 * 3600)
def backup(workdir: str = ".", to: str = "", keep: int = 14, verify: bool = True) -> dict[str, Any]:
    """Snapshot registry, DVC remote, runner state and configuration, encrypted; then bring it back into a
    temporary folder and check everything.

    Args:
        workdir: The project's folder, or a workspace.
        to: The folder of backups; empty takes runtime/backups. Another disk is better.
        keep: Snapshots that stay; older ones are dropped.
        verify: Also restore it into a temporary folder and open everything.
    """
    folder = Path(workdir).resolve()
    place = backups.Place.of(folder, Path(to) if to else None, None)
    snapshot = backups.create(folder, place, keep=keep)
    get_run_logger().info(snapshot.line())
    if verify:
        with tempfile.TemporaryDirectory(prefix="scalper-restore-", dir=place.folder) as scratch:
            into = Path(scratch) / "restored"
            restore.restore(place, snapshot.name, into)
            for text in restore.verify(into, snapshot):
                get_run_logger().info(text)
    create_table_artifact(key="backups", table=rows(place), description=snapshot.line())
    return {"snapshot": snapshot.name, "files": len(snapshot.entries)}


def rows(place: backups.Place) -> list[dict[str, str]]:
    """All snapshots, newest first."""
    return [
        {
            "snapshot": found.name,
            "files": f"{len(found.entries):,}",
            "MB": f"{sum(e.bytes for e in found.entries) / 1e6:,.1f}",
            "notes": "; ".join(found.notes),
        }
        for found in reversed(backups.snapshots(place))
    ]


if __name__ == "__main__":
    backup()
