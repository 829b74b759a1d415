"""From a registry alias to a bundle that may trade: pulled, verified, golden rows replayed, not simulated for
money.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from features.schema import schema_hash
from live.config_schema import RunnerConfig
from live.fetch_child import Request, pull_in_child
from market.errors import BundleError
from market.types import Instrument
from models.bundle import Bundle, BundleFault
from models.inference import Ensemble, check_golden

SIMULATED = "SIMULATED"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A verified bundle and where it came from."""

    bundle: Bundle
    alias: str
    version: str
    run: str = ""
    """The MLflow run that made it, where the registry says so."""

    @property
    def sha256(self) -> str:
        return self.bundle.sha256

    @property
    def watermark(self) -> str:
        return self.bundle.watermark

    def describe(self) -> dict[str, str]:
        return {
            "alias": self.alias, "version": self.version, "run": self.run, "manifest_sha256": self.sha256,
        }  # fmt: skip


def fetch(config: RunnerConfig, alias: str, *, try_models: bool = False) -> LoadedModel:
    """Pulls in a child process and verifies here (blocking: call it in a thread). Raises RegistryError or
    BundleError. ``try_models``: the child also runs every model, so that one that crashes crashes there.

    Expiry is not checked here: it is a matter of market time, which is known only after connecting.
    """
    source, folder = config.model, Path(config.system.runtime_dir) / "models"
    request = Request(source.registry, source.name, alias, str(folder), try_models=try_models)
    pulled = pull_in_child(request)
    try:
        return verify(config, pulled.path, alias, pulled.version, pulled.run)
    except BundleError:
        if not pulled.kept:
            raise
    # The copy of an earlier pull: damaged on this disk, or signed anew in the registry since (a key change).
    pulled = pull_in_child(replace(request, again=True))
    return verify(config, pulled.path, alias, pulled.version, pulled.run)


def verify(config: RunnerConfig, path: Path, alias: str, version: str, run: str = "") -> LoadedModel:
    """The checks of ``fetch`` on a bundle folder that is already here."""
    key = Path(config.model.verification_key) if config.model.verification_key else None
    if key is None and config.system.mode != "paper":
        raise BundleError(f"mode {config.system.mode} runs only signed bundles; set model.verification_key")
    bundle = Bundle.load(path, key, expect_schema=schema_hash())
    if bundle.watermark == SIMULATED and config.system.mode == "production":
        raise BundleError(
            f"bundle {bundle.sha256[:12]} was trained on simulated data; it may not trade real money. "
            "Train on a recording (params.yaml: data.source) or use mode paper"
        )
    check_golden(bundle)
    return LoadedModel(bundle, alias, version, run)


def check_expiry(model: LoadedModel, now_ns: int) -> None:
    """BundleError if the bundle is past its date by market time."""
    Bundle.load(model.bundle.path, None, now_ns=now_ns)


def tickers(config: RunnerConfig, bundle: Bundle) -> tuple[str, ...]:
    """What to trade: the configured instruments (which the bundle must know), else those of the bundle that
    ``data.universe`` names.
    """
    known = bundle.instruments
    wanted = tuple(name.partition("_")[0] for name in config.data.instruments)
    if not wanted:
        kind = {"shares": "share", "futures": "future"}.get(config.data.universe)
        wanted = tuple(t for t, i in known.items() if kind is None or i.kind == kind)
        if not wanted:
            raise BundleError(
                f"data.universe is {config.data.universe}, but bundle {bundle.sha256[:12]} knows none: "
                f"{', '.join(known)}; name data.instruments or set universe: model"
            )
    missing = [ticker for ticker in wanted if ticker not in known]
    if missing:
        raise BundleError(
            f"bundle {bundle.sha256[:12]} was not made for {', '.join(missing)}; it knows "
            f"{', '.join(known)}. "
            "Change data.instruments or train for them"
        )
    return wanted


def check_instruments(bundle: Bundle, found: dict[str, Instrument]) -> None:
    """The broker's instruments must be those of the training: another tick or lot is another market."""
    for ticker, instrument in found.items():
        trained = bundle.instruments[ticker]
        for name in ("class_code", "lot", "tick_nano", "kind"):
            ours, theirs = getattr(trained, name), getattr(instrument, name)
            if ours != theirs:
                raise BundleError(
                    f"{ticker}: the model was trained with {name} {ours}, the broker says {theirs}; train "
                    "again"
                )


def ensemble(config: RunnerConfig, model: LoadedModel, names: tuple[str, ...]) -> Ensemble:
    """The inference half of the bundle, on the backend and with the threads of the configuration.

    Raises BundleError; ``code`` no_backend where the GPU was asked for and is not there.
    """
    return Ensemble(model.bundle, names, backend=config.model.backend, threads=config.model.threads)


def ensemble_somewhere(
    config: RunnerConfig, model: LoadedModel, names: tuple[str, ...]
) -> tuple[Ensemble, str]:
    """(``ensemble``, why it is not on the GPU that was asked for, or nothing)."""
    try:
        return ensemble(config, model, names), ""
    except BundleFault as fault:
        if config.model.backend != "gpu":
            raise
        return Ensemble(model.bundle, names, threads=config.model.threads), str(fault)
