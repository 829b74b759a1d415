"""A small DeepLOB, the field's common reference (Zhang, Zohren, Roberts 2019), written from its description.

Kept: ten levels of both sides as an image of the last T books; convolutions that first join price and
size of a level, then the two sides, then all levels, with two convolutions along time after each; an
inception block; an LSTM; leaky rectifiers. Smaller: half of the channels and of the LSTM, fewer books,
few epochs. Different: prices are ticks from the last book's mid and sizes are logarithms, both scaled on
the fit span, because one recorded day has no five days before it to scale by; and one network answers all
horizons with a head each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from market.errors import ScalperError
from market.types import Books
from models import learner
from models.science.protocol import GAP_NS

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]

LEVELS = 10
COLUMNS = 4 * LEVELS
IGNORED = -100
"""Target of a row without a label, as torch's cross-entropy has it."""


class TooFewWindows(ScalperError):
    """The recording is too short for a network."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Size and schedule. ``seconds`` is a box of processor time: no epoch begins that would not
    end in it. An epoch shows at most ``rows_per_epoch`` rows, and at most a third of them all."""

    window: int = 50
    channels: int = 16
    lstm: int = 32
    epochs: int = 20
    patience: int = 4
    rows_per_epoch: int = 8_000
    batch: int = 128
    learning_rate: float = 1e-3
    choosing_rows: int = 3_000
    seconds: float = 120.0
    threads: int = 1


@dataclass(slots=True)
class Fitted:
    """Probabilities by horizon position, float64 [n, 3] for the rows asked, and how it went."""

    predict: Callable[[I64], list[F64]]
    facts: dict[str, Any]


def image(books: Books) -> tuple[F32, F32]:
    """(prices float32 [n, 40] in ticks from the first mid, log sizes): ask, bid by level; absent levels 0."""
    mid = (books.bid_px[:, :1].astype(np.float64) + books.ask_px[:, :1]) / 2
    prices = np.empty((len(mid), 2 * LEVELS), np.float32)
    sizes = np.empty_like(prices)
    for k, (px, qty) in enumerate(((books.ask_px, books.ask_qty), (books.bid_px, books.bid_qty))):
        there = qty[:, :LEVELS] > 0
        prices[:, k::2] = np.where(there, px[:, :LEVELS] - mid[:1], mid - mid[:1])
        sizes[:, k::2] = np.where(there, np.log1p(qty[:, :LEVELS]), 0.0)
    return prices, sizes


def train(
    books: Books, labels: Sequence[U8], fit: Sequence[Mask], choose: Sequence[Mask], *,
    recipe: Recipe = Recipe(), seed: int = 1, say: Callable[[str], None] = lambda line: None,
) -> Fitted:  # fmt: skip
    """Fit on rows where any horizon has a label; keep the epoch with the least log-loss on ``choose``."""
    import torch

    rng = np.random.default_rng(seed)
    prices, sizes = image(books)
    whole = _whole_windows(books.recv_ns, recipe.window)
    targets = np.stack([np.where(mask, y, 0) for y, mask in zip(labels, fit, strict=True)], 1).astype(
        np.int64
    )
    targets[~np.stack(fit, 1)] = IGNORED
    checks = np.stack([np.where(mask, y, 0) for y, mask in zip(labels, choose, strict=True)], 1).astype(
        np.int64
    )
    checks[~np.stack(choose, 1)] = IGNORED
    taught = np.flatnonzero(whole & (targets != IGNORED).any(1))
    checked = _thin(np.flatnonzero(whole & (checks != IGNORED).any(1)), recipe.choosing_rows)
    if len(taught) < recipe.batch or len(checked) == 0:
        raise TooFewWindows(f"{len(taught)} windows to teach and {len(checked)} to choose are too few")
    feed = _Feed(prices, sizes, taught, recipe.window)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = _network(recipe, len(labels))
    a_turn = min(recipe.rows_per_epoch, max(recipe.batch, len(taught) // 3))
    optimiser = torch.optim.Adam(net.parameters(), recipe.learning_rate)
    best, best_loss, began, waited = None, np.inf, time.process_time(), 0
    losses: list[float] = []
    with learner.fixed_threads(recipe.threads, torch=True):
        for epoch in range(recipe.epochs):
            net.train()
            order = rng.permutation(taught)[:a_turn]
            for first in range(0, len(order) - recipe.batch // 2, recipe.batch):
                at = order[first : first + recipe.batch]
                loss = _loss(net(feed(at)), torch.from_numpy(targets[at]))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimiser.step()
            scores = _run(net, feed, checked)
            loss_now = float(_loss(torch.from_numpy(scores), torch.from_numpy(checks[checked])))
            losses.append(loss_now)
            spent = time.process_time() - began
            say(
                f"deeplob: epoch {epoch + 1}/{recipe.epochs}, log-loss {loss_now:.4f} on the choosing span, "
                f"{spent:.0f} s of processor"
            )
            if loss_now < best_loss:
                best, best_loss = {k: v.clone() for k, v in net.state_dict().items()}, loss_now
            waited = 0 if loss_now == best_loss else waited + 1
            if waited >= recipe.patience or spent * (epoch + 2) / (epoch + 1) > recipe.seconds:
                break
    assert best is not None
    net.load_state_dict(best)

    def predict(rows: I64) -> list[F64]:
        with learner.fixed_threads(recipe.threads, torch=True):
            scores = _run(net, feed, rows).astype(np.float64)
        e = np.exp(scores - scores.max(2, keepdims=True))
        p = e / e.sum(2, keepdims=True)
        return [p[:, k] for k in range(p.shape[1])]

    size = sum(p.numel() for p in net.parameters())
    return Fitted(predict, {"parameters": size, "epochs": len(losses), "log_loss": losses})


class _Feed:
    """Windows of T books ending at the asked rows as a tensor [B, 1, T, 40], scaled by what the fit rows
    show."""

    def __init__(self, prices: F32, sizes: F32, rows: I64, window: int) -> None:
        self.prices, self.sizes = prices, sizes
        self.reach = np.arange(1 - window, 1)
        x, z = self._raw(_thin(rows, 4_000))
        self.price_scale = float(max(x.std(), 1e-3))
        self.size_mean, self.size_scale = float(z.mean()), float(max(z.std(), 1e-3))

    def _raw(self, rows: I64) -> tuple[F32, F32]:
        # A row near the start of the recording sees its first book repeated.
        at = np.maximum(rows[:, None] + self.reach, 0)
        now = (self.prices[rows, 0] + self.prices[rows, 1]) / 2
        return self.prices[at] - now[:, None, None], self.sizes[at]

    def __call__(self, rows: I64) -> Any:
        import torch

        x, z = self._raw(rows)
        out = np.empty((len(rows), 1, len(self.reach), COLUMNS), np.float32)
        out[:, 0, :, 0::2] = np.clip(x / self.price_scale, -6, 6)
        out[:, 0, :, 1::2] = (z - self.size_mean) / self.size_scale
        return torch.from_numpy(out)


def _whole_windows(recv_ns: I64, window: int) -> Mask:
    """Rows whose last ``window`` books hold no long silence and lie in the recording."""
    n = len(recv_ns)
    start = np.zeros(n, np.int64)
    start[1:] = np.where(np.diff(recv_ns) > GAP_NS, np.arange(1, n), 0)
    return np.arange(n) - np.maximum.accumulate(start) >= window - 1


def _thin(rows: I64, most: int) -> I64:
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _loss(scores: Any, targets: Any) -> Any:
    """Mean cross-entropy over all labelled (row, horizon) pairs."""
    import torch

    return torch.nn.functional.cross_entropy(scores.reshape(-1, 3), targets.reshape(-1), ignore_index=IGNORED)


def _run(net: Any, feed: _Feed, rows: I64, batch: int = 512) -> F32:
    import torch

    net.eval()
    with torch.no_grad():
        parts = [net(feed(rows[k : k + batch])).numpy() for k in range(0, len(rows), batch)]
    return np.concatenate(parts).astype(np.float32)


def _network(recipe: Recipe, horizons: int) -> Any:
    import torch
    from torch import nn

    c = recipe.channels

    def along_time(width: int) -> list[Any]:
        return [
            nn.Conv2d(width, width, (4, 1), padding=(2, 0)), nn.LeakyReLU(0.01),
            nn.Conv2d(width, width, (4, 1), padding=(1, 0)), nn.LeakyReLU(0.01), nn.BatchNorm2d(width),
        ]  # fmt: skip

    class DeepLob(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.levels = nn.Sequential(
                nn.Conv2d(1, c, (1, 2), stride=(1, 2)), nn.LeakyReLU(0.01), *along_time(c),
                nn.Conv2d(c, c, (1, 2), stride=(1, 2)), nn.LeakyReLU(0.01), *along_time(c),
                nn.Conv2d(c, c, (1, LEVELS)), nn.LeakyReLU(0.01), *along_time(c),
            )  # fmt: skip
            self.short = nn.Sequential(
                nn.Conv1d(c, 2 * c, 1), nn.LeakyReLU(0.01), nn.Conv1d(2 * c, 2 * c, 3, padding=1)
            )
            self.long = nn.Sequential(
                nn.Conv1d(c, 2 * c, 1), nn.LeakyReLU(0.01), nn.Conv1d(2 * c, 2 * c, 5, padding=2)
            )
            self.pool = nn.Sequential(nn.MaxPool1d(3, stride=1, padding=1), nn.Conv1d(c, 2 * c, 1))
            self.lstm = nn.LSTM(6 * c, recipe.lstm, batch_first=True)
            self.heads = nn.Linear(recipe.lstm, 3 * horizons)

        def forward(self, x: Any) -> Any:
            h = self.levels(x).squeeze(3)
            h = torch.cat([self.short(h), self.long(h), self.pool(h)], 1)
            h = nn.functional.leaky_relu(h, 0.01).transpose(1, 2)
            out, _ = self.lstm(h)
            return self.heads(out[:, -1]).view(-1, horizons, 3)

    return DeepLob()
