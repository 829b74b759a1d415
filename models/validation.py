"""Would another past have taught the same? Trees and the plain policy over many splits of several days.

Walk-forward: every fold learns from whole sessions, calibrates on the next ones and trades the last ones.
CPCV: every choice of tested groups, with all labels that come near them left out of training, laid end to end
into whole histories; the spread of their Sharpe ratios says how much hangs on what was trained on. One
learner stands for all, for the line's networks cannot be trained thirty times, and nothing is searched: the
policy is the plain one.

Splits know nothing of each other: each is a ``Piece`` that any process can fit and trade from the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from features.schema import FEATURES
from market.errors import ConfigError
from market.types import SECOND_NS
from models import evaluate, gbdt, learner
from models.calibrate import fit_temperature
from models.cross_validation import (
    Cpcv,
    Fold,
    Session,
    by_day,
    session_groups,
    shortest_embargo_ns,
    walk_forward,
)
from models.dataset import Dataset, load
from models.labels import VOID
from models.learner import F64, Mask, Progress
from models.policy import Choice, Costs, Market, Player, Prepared
from models.policy_search import PLAIN_EXIT_SHARE, PLAIN_THRESHOLD_SHARE
from models.significance import sharpe_distribution

SESSIONS_MIN = 4
"""Fewer days make no two groups to test beside two to learn from; within a day the paths say nothing of
others."""
GROUPS_MAX, TESTED = 6, 2
ROUNDS, MAX_ROWS, ALPHA = 80, 40_000, 0.2
FEATURE_WINDOW_NS = round(max(f.window_s for f in FEATURES) * SECOND_NS)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a split needs besides rows; ``fee_bps`` by ticker; ``rounds``: trees, None for ROUNDS of them."""

    costs: Costs
    fee_bps: Mapping[str, float]
    seed: int
    threads: int = 1
    rounds: int | None = None


Kind = Literal["walk_forward", "cpcv"]


@dataclass(frozen=True, slots=True)
class Piece:
    """One split: the trees of one training set, and what they earn wherever that split tests."""

    kind: Kind
    number: int


Earned = list[tuple[F64, int]]
"""Of each span that a piece tests: net bps by bin of time, and the number of trades."""
Trade = Callable[[Sequence[Piece]], Iterable[Earned]]
Mapped = Callable[[Callable[[Any], Earned], Sequence[Any]], Iterable[Earned]]
"""As the builtin ``map`` over a list, wherever it is computed."""


def sessions_of(dataset: Dataset) -> tuple[Session, ...]:
    """The days of a data set, each at its widest over the instruments."""
    parts = []
    for s in dataset.series.values():
        ends = [*s.day_start[1:], len(s)]
        parts += [
            (day, int(s.recv_ns[a]), int(s.recv_ns[b - 1]) + 1)
            for day, a, b in zip(s.days, s.day_start, ends, strict=True)
        ]
    return by_day(parts)


def embargo_ns(dataset: Dataset) -> int:
    """Nothing leaks over this distance: the longest label window or feature window of the data set."""
    return shortest_embargo_ns(
        horizon_ns=dataset.blocks.purge_ns, feature_window_ns=FEATURE_WINDOW_NS, decorrelation_ns=0
    )


def study(
    dataset: Dataset, settings: Settings, progress: Progress = print, trade: Trade | None = None
) -> dict[str, Any]:
    """``walk_forward``: net result of every fold; ``cpcv``: ``sharpe_distribution`` and the ``sharpes`` of
    the paths. Either is ``{"missing": why}`` where there are too few sessions. The data set's last block,
    ``live``, is not looked at. ``trade``: what the pieces earn, by default one after another here."""
    rows = _Rows(dataset, settings)
    if len(rows.sessions) < SESSIONS_MIN:
        why = (
            f"not enough: {len(rows.sessions)} whole sessions before block 'live', {SESSIONS_MIN} are "
            "needed; parts of one day say nothing about other days"
        )
        return {"sessions": len(rows.sessions), "walk_forward": {"missing": why}, "cpcv": {"missing": why}}
    found: dict[str, Any] = {"sessions": len(rows.sessions)}
    with learner.fixed_threads(settings.threads):
        for name, work in (("walk_forward", _folds), ("cpcv", _paths)):
            try:
                found[name] = work(rows, trade or rows.trade, progress)
            except ConfigError as error:  # sessions too short for what is purged and embargoed
                found[name] = {"missing": f"not enough: {error}"}
    return found


def study_at(
    features: Path, labels: Path, settings: Settings, progress: Progress = print, mapped: Mapped = map
) -> dict[str, Any]:
    """``study`` of the data set that lies in two folders; ``mapped`` computes the pieces, each from the same
    files."""
    places = str(features.resolve()), str(labels.resolve()), _stamp(features, labels)

    def trade(pieces: Sequence[Piece]) -> Iterable[Earned]:
        return mapped(_earned_at, [(places, settings, piece) for piece in pieces])

    return study(_loaded(*places), settings, progress, trade)


def _earned_at(asked: tuple[tuple[str, str, str], Settings, Piece]) -> Earned:
    places, settings, piece = asked
    with learner.fixed_threads(settings.threads):
        return _Rows(_loaded(*places), settings).earned(piece)


@lru_cache(maxsize=1)
def _loaded(features: str, labels: str, stamp: str) -> Dataset:
    """Read once by every process; ``stamp`` tells the data of another run in the same folders apart."""
    return load(Path(features), Path(labels))


def _stamp(*folders: Path) -> str:
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return str([(path.name, (seen := path.stat()).st_size, seen.st_mtime_ns) for path in files])


def _folds(rows: _Rows, trade: Trade, progress: Progress) -> dict[str, Any]:
    """Expanding walk-forward: all but the last two days of a fold teach, the last of them calibrating."""
    found: list[dict[str, Any]] = []
    pieces = [Piece("walk_forward", number) for number in range(len(rows.folds))]
    for fold, ((net, trades),) in zip(rows.folds, trade(pieces), strict=True):
        found.append(
            {
                "days": list(fold.days["score"]), "trades": trades, "net_bps": float(net.sum()),
                "sharpe": evaluate.sharpe(net),
            }
        )  # fmt: skip
        progress(f"walk-forward {found[-1]['days']}: {trades} trades, {net.sum():+.1f} bps net")
    return {"folds": found, "positive": sum(f["net_bps"] > 0 for f in found)}


def _paths(rows: _Rows, trade: Trade, progress: Progress) -> dict[str, Any]:
    cpcv = rows.cpcv
    progress(f"CPCV: {len(cpcv.splits)} splits of {len(cpcv.groups)} groups, {len(cpcv.paths)} paths")
    returns: dict[tuple[int, int], F64] = {}
    pieces = [Piece("cpcv", number) for number in range(len(cpcv.splits))]
    for number, (tested, earned) in enumerate(zip(cpcv.splits, trade(pieces), strict=True)):
        for g, (net, _) in zip(tested, earned, strict=True):
            returns[number, g] = net
    paths = [
        np.concatenate([returns[split, g] for g, split in enumerate(path)]) for path in cpcv.paths.tolist()
    ]
    sharpes = [evaluate.sharpe(path) for path in paths]
    return {**sharpe_distribution(np.stack(paths)), "sharpes": sharpes, "splits": len(cpcv.splits)}


class _Rows:
    """The data set, the trees of each training set (fitted once), and what the plain policy earns with
    them."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        self.dataset, self.settings = dataset, settings
        self.purge_ns, self.embargo_ns = dataset.blocks.purge_ns, embargo_ns(dataset)
        live_ns = dataset.blocks.span("live")[0] if "live" in dataset.blocks.names else None
        self.sessions = [s for s in sessions_of(dataset) if live_ns is None or s.to_ns <= live_ns]
        self._trees: tuple[bytes, Any] | None = None

    @cached_property
    def seen(self) -> dict[str, learner.Series]:
        return {s.ticker: s for s in learner.series_of(self.dataset)}

    @cached_property
    def folds(self) -> tuple[Fold, ...]:
        return walk_forward(
            self.sessions, train_days=2, purge_ns=self.purge_ns, embargo_ns=self.embargo_ns, validate_days=1,
            expanding=True,
        )  # fmt: skip

    @cached_property
    def cpcv(self) -> Cpcv:
        groups = session_groups(self.sessions, min(len(self.sessions), GROUPS_MAX))
        return Cpcv(groups, TESTED, self.embargo_ns)

    def trade(self, pieces: Sequence[Piece]) -> Iterable[Earned]:
        return map(self.earned, pieces)

    def earned(self, piece: Piece) -> Earned:
        return self._fold(piece.number) if piece.kind == "walk_forward" else self._split(piece.number)

    def _fold(self, number: int) -> Earned:
        fold = self.folds[number]
        code = {t: fold.code(s.recv_ns) for t, s in self.dataset.series.items()}
        index = fold.blocks.index
        fit = {t: self.known(t) & (code[t] == index("fit")) for t in code}
        # The plain policy chooses nothing, so that the validation days may calibrate as well.
        after = {t: (code[t] == index("calibrate")) | (code[t] == index("threshold")) for t in code}
        return [self.play(fit, after, fold.blocks.span("score"))]

    def _split(self, number: int) -> Earned:
        groups, tested = self.cpcv.groups, self.cpcv.splits[number]
        learnt = [g for g in range(len(groups)) if g not in tested]
        fit, after = {}, {}
        for ticker, s in self.dataset.series.items():
            train, _ = self.cpcv.masks(number, s.recv_ns, s.exit_ns)
            last = (s.recv_ns >= groups[learnt[-1]][0]) & (s.recv_ns < groups[learnt[-1]][1])
            fit[ticker] = self.known(ticker) & train & ~last
            after[ticker] = train & last
        return [self.play(fit, after, groups[g]) for g in tested]

    def known(self, ticker: str) -> Mask:
        s = self.dataset.series[ticker]
        return s.usable & (s.y != VOID)

    def play(
        self, fit: Mapping[str, Mask], after: Mapping[str, Mask], span: tuple[int, int]
    ) -> tuple[F64, int]:
        """Net bps by bin of time in ``span`` and the number of trades: trees on ``fit``, slope, temperature
        and abstention on ``after``."""
        trees = self._fitted(fit)
        prepared = []
        for ticker, s in self.dataset.series.items():
            tested = (s.recv_ns >= span[0]) & (s.recv_ns < span[1])
            if not tested.any() or not after[ticker].any():
                continue
            rows = s.usable & (tested | after[ticker])
            logp = np.full((len(s), 3), np.nan, np.float32)
            logp[rows] = gbdt.log_of(
                trees.predict(self.seen[ticker].X[rows], num_threads=self.settings.threads)
            )
            day = np.zeros(len(s), np.int64)
            day[s.day_start[1:]] = 1
            y = np.where(s.y == VOID, -1, s.y.astype(np.int64))
            market = Market(
                ticker, s.recv_ns, s.mid2, s.spread, y, s.move_bps, after[ticker], tested, np.cumsum(day),
                self.settings.fee_bps[ticker], {gbdt.NAME: logp},
            )  # fmt: skip
            prepared.append(Prepared.of(market, {gbdt.NAME: 1.0}))
        player = Player(prepared, {gbdt.NAME: 1.0}, self.settings.costs, 1.0, 0, ALPHA)
        temperature = fit_temperature(player.stacked({gbdt.NAME: 1.0}), player.outcomes())
        choice = Choice(
            {gbdt.NAME: 1.0}, temperature, PLAIN_THRESHOLD_SHARE, PLAIN_EXIT_SHARE * player.median_cost, 1.0
        )
        played = [player.play(p, choice) for p in prepared]
        return np.sum([o.returns for o in played], axis=0), sum(len(o.net_bps) for o in played)

    def _fitted(self, fit: Mapping[str, Mask]) -> Any:
        key = b"".join(np.packbits(fit[t]).tobytes() for t in fit)
        if self._trees is None or self._trees[0] != key:
            self._trees = key, self._train(fit)
        return self._trees[1]

    def _train(self, fit: Mapping[str, Mask]) -> Any:
        import lightgbm as lgb

        series = list(self.seen.values())
        X, y = learner.pool(series, [fit[s.ticker] for s in series])
        keep = learner.thin(len(y), MAX_ROWS)
        X, y = learner.with_mirror(X[keep], y[keep])
        parameters = gbdt.settings(len(y), seed=self.settings.seed, threads=self.settings.threads)
        return lgb.train(parameters, lgb.Dataset(X, y), self.settings.rounds or ROUNDS)
