"""Versions and aliases of bundles in MLflow, for the platform; the box reads them with plain SQL or REST.

A version is the bundle folder, file for file (no flavour, no pickle), keyed by the hash of its manifest:
publishing the same bundle twice gives the same version. An alias is a pointer, never the trust root. MLflow
keeps no history of aliases, so every move is also a line in ``promotions.jsonl``, each with the hash of the
line before.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any
from urllib.parse import unquote, urlsplit

from market.errors import RegistryError
from models.bundle import Bundle
from models.gate import ALIASES, GateResult
from models.promotions import JOURNAL, PREVIOUS, Journal

MODEL = "scalper"
EXPERIMENT = "scalper"
DEFAULT_URI = "sqlite:///runtime/mlflow/mlflow.db"

SHA_TAG = "manifest.sha256"
METRICS_A_BATCH, PARAMS_A_BATCH = 1000, 100
"""What MLflow takes in one call."""
MAX_VERSIONS = 1000
MAX_TAG_CHARS = 4000
_NOT_A_NAME = re.compile(r"[^\w\-. :/]")
"""What MLflow allows in the name of a metric or parameter, turned round."""


@dataclass(frozen=True, slots=True)
class Version:
    """One model version: its number, the bundle's manifest hash, where its files are, tags and aliases."""

    number: int
    manifest_sha256: str
    location: str
    tags: dict[str, str]
    aliases: tuple[str, ...]


# --- publishing -------------------------------------------------------------------------------------------


def publish(
    bundle_dir: Path, *, uri: str = DEFAULT_URI, tags: Mapping[str, str] | None = None,
    public_key_path: Path | None = None, attachments: Sequence[Path] = (),
) -> int:  # fmt: skip
    """Make the bundle a model version and return its number; the one it has if it was published before.

    ``tags`` is the lineage (git.commit, dvc.lock, ...); watermark, data and code hash are added from the
    manifest. ``attachments`` (reports, plots) go to the run beside the version. The bundle's hashes, and with
    ``public_key_path`` its signature, are verified first. Raises BundleFault, RegistryError.
    """
    bundle = Bundle.load(Path(bundle_dir), public_key_path)
    with _registry(uri) as client:
        known = _find_by_sha(client, bundle.sha256)
        if known is not None:
            return known
        lineage = {**_lineage(bundle), **(tags or {})}
        experiment_id = _experiment(client, uri)
        run_id = _record_run(client, experiment_id, bundle, lineage, attachments)
        done = "FAILED"
        try:
            # A LoggedModel, not a run artifact: its location is the address a reader can open directly. The
            # version names both: given the run alone a server refuses a source outside it, given the model
            # alone MLflow looks it up in its global store, which is a new file in the current folder.
            model = client.create_logged_model(
                experiment_id, name="bundle", source_run_id=run_id, model_type="scalper-bundle"
            )
            client.log_model_artifacts(model.model_id, str(bundle.path))
            client.finalize_logged_model(model.model_id, "READY")
            _ensure_model(client)
            version = client.create_model_version(
                MODEL, source=model.artifact_location, run_id=run_id, model_id=model.model_id,
                tags={**lineage, SHA_TAG: bundle.sha256, "logged_model_id": model.model_id},
            )  # fmt: skip
            done = "FINISHED"
        finally:
            client.set_terminated(run_id, done)
        return int(version.version)


def _lineage(bundle: Bundle) -> dict[str, str]:
    keys = {"data.hash": "data_hash", "code.hash": "code_hash", "schema.hash": "feature_schema_hash"}
    tags = {tag: str(bundle.manifest[key]) for tag, key in keys.items()}
    return {**tags, "watermark": bundle.watermark, "tariff": str(bundle.manifest["tariff"])}


def _record_run(
    client: Any, experiment_id: str, bundle: Bundle, tags: Mapping[str, str], attachments: Sequence[Path]
) -> str:
    """The run behind a version: parameters and metrics of the manifest, for comparison in MLflow's pages."""
    from mlflow.entities import Metric, Param

    run = client.create_run(experiment_id, run_name=f"bundle {bundle.sha256[:12]}", tags=dict(tags))
    now_ms = run.info.start_time
    metrics = [
        Metric(_NOT_A_NAME.sub("_", key), float(value), now_ms, 0)
        for key, value in _flat(bundle.manifest["metrics"])
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    params = [
        Param(_NOT_A_NAME.sub("_", key), str(value)[:500]) for key, value in _flat(bundle.manifest["params"])
    ]
    for first in range(0, len(metrics), METRICS_A_BATCH):
        client.log_batch(run.info.run_id, metrics=metrics[first : first + METRICS_A_BATCH])
    for first in range(0, len(params), PARAMS_A_BATCH):
        client.log_batch(run.info.run_id, params=params[first : first + PARAMS_A_BATCH])
    for path in attachments:
        client.log_artifact(run.info.run_id, str(path))
    return str(run.info.run_id)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in sorted(value.items()):
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif not isinstance(value, (list, tuple)):
        yield prefix, value


# --- aliases ----------------------------------------------------------------------------------------------


def promote(
    uri: str, which: int | str, to_alias: str, gate_result: GateResult, reason: str, *,
    journal: Path | None = None, skip_ladder: bool = False, override: str = "",
    expected: int | EllipsisType | None = ...,
) -> dict[str, Any]:  # fmt: skip
    """Move ``to_alias`` to a version (number or alias) and return the journal's entry.

    Refused with RegistryError when the gate did not pass for that very alias, when the version has not stood
    on the rung below (``skip_ladder`` for a first set-up), or without a reason. ``override``, a person's
    reason, moves it against the gate and is kept in the journal and as a tag of the version. ``expected``:
    where the alias stood when the gate was asked; if it has moved since, another promotion won and this one
    is refused. What ``prod`` leaves becomes ``previous``. Moving an alias to where it is changes nothing and
    returns the entry of that move.
    """
    if to_alias not in ALIASES:
        raise RegistryError(f"alias {to_alias!r} is unknown; the ladder is {', '.join(ALIASES)}")
    if not reason.strip():
        raise RegistryError("a promotion needs a reason: it is what a later reader has")
    if gate_result.alias != to_alias or not (gate_result.passed or override.strip()):
        why = " ".join(gate_result.refusals) or f"it judged for {gate_result.alias!r}"
        raise RegistryError(f"the gate does not let this version become {to_alias!r}: {why}")
    with _registry(uri) as client, Journal(journal or journal_path(uri)) as book:
        version = _version(client, which)
        held = _aliases(client).get(to_alias)
        if expected is not ... and held not in (expected, version.number):
            raise RegistryError(
                f"alias {to_alias} went from version {expected} to {held} while version {version.number} was "
                "being judged: another promotion won; look at it and judge again"
            )
        if not skip_ladder:
            _check_ladder(book.entries, version, to_alias)
        gate = gate_result.to_dict()
        return _move(client, book, version, to_alias, "promote", reason.strip(), gate, override.strip())


def rollback(uri: str, reason: str, *, journal: Path | None = None) -> dict[str, Any]:
    """Swap what ``prod`` and ``previous`` point at; returns the journal's entry."""
    if not reason.strip():
        raise RegistryError("a rollback needs a reason: it is what a later reader has")
    with _registry(uri) as client, Journal(journal or journal_path(uri)) as book:
        return _move(client, book, _version(client, PREVIOUS), "prod", "rollback", reason.strip(), None)


def aliases(uri: str) -> dict[str, int]:
    """Version number by alias; empty before the first publication."""
    with _registry(uri) as client:
        return _aliases(client)


def versions(uri: str) -> list[Version]:
    """All versions, newest first."""
    with _registry(uri) as client:
        held = _aliases(client)
        return [_described(v, held) for v in _search(client, f"name = '{MODEL}'")]


def version(uri: str, which: int | str) -> Version:
    """A version by number or alias; RegistryError names what there is instead."""
    with _registry(uri) as client:
        return _version(client, which)


def fetch(uri: str, which: int | str, into: Path) -> Path:
    """A folder with a version's files: where the registry keeps them on this machine, else a copy in
    ``into``. Nothing is verified here: that is ``Bundle.load``."""
    try:
        return local_path(uri, which)
    except NotHere:
        with _registry(uri) as client:
            found = _version(client, which)
            from mlflow.artifacts import download_artifacts

            return Path(download_artifacts(found.location, dst_path=str(into), tracking_uri=uri))


class NotHere(RegistryError):
    """The registry keeps the files on another machine."""


def local_path(uri: str, which: int | str) -> Path:
    """The folder of a version's files where the registry keeps them on this machine."""
    location = version(uri, which).location
    parts = urlsplit(location)
    database = _sqlite_path(uri)
    if parts.scheme == "file":
        path = Path(unquote(parts.path))
        _, found, tail = parts.path.partition("/artifacts/models/")
        if not path.is_dir() and database is not None and found:
            # The registry was moved or restored elsewhere: the same files beside the database.
            path = database.parent / "artifacts" / "models" / unquote(tail)
    elif parts.scheme == "mlflow-artifacts" and database is not None:
        path = database.parent / "artifacts" / unquote(parts.path).lstrip("/")
    else:
        raise NotHere(f"the files of version {which} are at {location}, which is not on this machine")
    if not path.is_dir():
        raise RegistryError(f"the files of version {which} are gone from {path}; publish the bundle again")
    return path


def _move(
    client: Any,
    book: Journal,
    version: Version,
    alias: str,
    kind: str,
    reason: str,
    gate: dict[str, Any] | None,
    override: str = "",
) -> dict[str, Any]:
    held = _aliases(client)
    before = held.get(alias)
    if before == version.number:
        earlier = [e for e in book.entries if e["alias"] == alias and e["version"] == version.number]
        return earlier[-1] if earlier else {"kind": "unchanged", "alias": alias, "version": version.number}
    # The line is written before the pointer moves: a crash in between leaves an intention on record, never an
    # unexplained move. A move that fails is followed by a line that says so.
    fields = {
        "kind": kind, "model": MODEL, "alias": alias, "version": version.number,
        "manifest_sha256": version.manifest_sha256, "replaces": before, "reason": reason, "gate": gate,
        "override": override,
    }  # fmt: skip
    entry = book.append(fields)
    try:
        if alias == "prod" and before is not None:
            client.set_registered_model_alias(MODEL, PREVIOUS, str(before))
        client.set_registered_model_alias(MODEL, alias, str(version.number))
        client.set_model_version_tag(
            MODEL, str(version.number), f"alias.{alias}", f"{entry['at']} {reason}"[:MAX_TAG_CHARS]
        )
        if override:
            client.set_model_version_tag(
                MODEL, str(version.number), f"override.{alias}", f"{entry['at']} {override}"[:MAX_TAG_CHARS]
            )
    except Exception as e:
        book.append({**fields, "kind": "failed", "reason": str(e)[:MAX_TAG_CHARS]})
        raise
    return entry


def _check_ladder(entries: Sequence[Mapping[str, Any]], version: Version, alias: str) -> None:
    rung = ALIASES.index(alias)
    below = ALIASES[rung - 1]
    stood = any(
        e["kind"] == "promote"
        and e["alias"] in ALIASES[rung - 1 :]
        and e["manifest_sha256"] == version.manifest_sha256
        for e in entries
    )
    if rung > 0 and not stood:
        raise RegistryError(f"version {version.number} was never {below!r}, and {alias!r} comes after it")


def journal_path(uri: str) -> Path:
    """Beside the database for SQLite, else in ``runtime/mlflow``."""
    database = _sqlite_path(uri)
    return (database.parent if database else Path("runtime/mlflow")) / JOURNAL


@contextmanager
def probe(uri: str, name: str) -> Iterator[tuple[str, int]]:
    """A registered model ``name`` of nothing, (alias, version number), removed on the way out: for a check
    that the registry writes and reads."""
    with _registry(uri) as client:
        run = client.create_run(_experiment(client, uri), run_name=name)
        try:
            client.create_registered_model(name, description="a check by scalper doctor")
            source = f"{run.info.artifact_uri}/nothing"
            number = client.create_model_version(name, source=source, run_id=run.info.run_id).version
            client.set_registered_model_alias(name, "probe", str(number))
            yield "probe", int(number)
        finally:
            if client.search_registered_models(f"name = '{name}'"):
                client.delete_registered_model(name)
            client.delete_run(run.info.run_id)


# --- MLflow -----------------------------------------------------------------------------------------------


@contextmanager
def _registry(uri: str) -> Iterator[Any]:
    """An MLflow client; what MLflow, its database or its server raise becomes a RegistryError."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    database = _sqlite_path(uri)
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
    import mlflow

    if not hasattr(mlflow, "MlflowClient"):
        raise RegistryError("the library mlflow is not installed here (only the folder of that name is); "
                            "install the platform: pip install 'scalper[platform]'")  # fmt: skip
    import requests
    import sqlalchemy

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    except (mlflow.MlflowException, sqlalchemy.exc.SQLAlchemyError, requests.RequestException, OSError) as e:
        text = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise RegistryError(f"the registry {uri} does not do what was asked: {text}") from e


def _sqlite_path(uri: str) -> Path | None:
    prefix = "sqlite:///"
    return Path(uri[len(prefix) :]) if uri.startswith(prefix) else None


def _experiment(client: Any, uri: str) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    database = _sqlite_path(uri)
    place = None if database is None else (database.parent / "artifacts").resolve().as_uri()
    return str(client.create_experiment(EXPERIMENT, artifact_location=place))


def _ensure_model(client: Any) -> None:
    if not client.search_registered_models(f"name = '{MODEL}'", max_results=1):
        client.create_registered_model(
            MODEL, description="Signed bundles of order-book models (see model_card.md)"
        )


def _search(client: Any, query: str) -> list[Any]:
    return list(
        client.search_model_versions(query, max_results=MAX_VERSIONS, order_by=["version_number DESC"])
    )


def _find_by_sha(client: Any, sha256: str) -> int | None:
    found = _search(client, f"name = '{MODEL}' and tag.`{SHA_TAG}` = '{sha256}'")
    return min((int(v.version) for v in found if v.status == "READY"), default=None)


def _aliases(client: Any) -> dict[str, int]:
    found = client.search_registered_models(f"name = '{MODEL}'", max_results=1)
    return {str(alias): int(number) for alias, number in found[0].aliases.items()} if found else {}


def _version(client: Any, which: int | str) -> Version:
    held = _aliases(client)
    if isinstance(which, str) and which.isdecimal():
        which = int(which)
    number = held.get(which) if isinstance(which, str) else which
    known = {int(v.version): v for v in _search(client, f"name = '{MODEL}'")}
    if number not in known:
        there = ", ".join(f"{a} -> {n}" for a, n in sorted(held.items())) or "no aliases"
        raise RegistryError(
            f"the registry has no version {which!r} of {MODEL}; it has {len(known)} versions, {there}"
        )
    return _described(known[number], held)


def _described(found: Any, held: Mapping[str, int]) -> Version:
    number = int(found.version)
    names = tuple(sorted(a for a, n in held.items() if n == number))
    return Version(number, found.tags.get(SHA_TAG, ""), str(found.source), dict(found.tags), names)
