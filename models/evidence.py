"""What the trials prove: was the best of them chosen by luck, and is anything left when luck is taken away?

Two figures of ``models.significance`` over all trials' results in bins of block ``threshold``. A search that
CSCV does not acquit is not believed: the plain policy, one for every market, is kept instead, and then
nothing was chosen. That happens to nulls, and it happens where all trials are equally
good: there is nothing to choose then, either.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from models import evaluate
from models.learner import F64
from models.significance import (
    PBO_BLOCKS,
    PBO_LIMIT,
    EvidenceError,
    deflated_sharpe,
    independent_trials,
    pbo,
)

FEWEST_BLOCKS = 8
"""CSCV on fewer blocks than this has fewer than 70 half-splits."""


def overfitting(returns: F64) -> dict[str, Any]:
    """``Overfitting.to_dict`` of all trials, float64 [bins, trials]; ``{"missing": why}`` where there are too
    few bins or trials."""
    blocks = min(PBO_BLOCKS, len(returns) // 2 // 2 * 2)
    try:
        if blocks < FEWEST_BLOCKS:
            raise EvidenceError(
                f"{len(returns)} bins of time, {2 * FEWEST_BLOCKS} are needed: record more, or use a shorter "
                "horizon"
            )
        return pbo(returns, blocks=blocks).to_dict()
    except EvidenceError as error:
        return {"missing": str(error)}


def believed(found: dict[str, Any], limit: float = PBO_LIMIT) -> tuple[bool, str]:
    """Whether the best trial may be kept, and why in one sentence."""
    if "missing" in found:
        return False, f"overfitting could not be measured ({found['missing']}); the plain policy is kept"
    share = found["pbo"]
    if share > limit:
        return False, (
            f"in {share:.0%} of half-splits the best trial was no better than the median one in the other "
            f"half, {limit:.0%} are allowed; the plain policy is kept"
        )
    return (
        True,
        f"in {1 - share:.0%} of half-splits the best trial was better than the median in the other half",
    )


def deflated(kept: F64, returns: F64, choices: int) -> dict[str, Any]:
    """The deflated Sharpe ratio of the kept policy, ``Deflated.to_dict``, the lower of two readings.

    ``kept`` float64 [bins]; ``returns`` float64 [bins, trials]; ``choices``: everything that was tried,
    trials times instruments. Either all of them count and scatter as they did, or as many as are independent
    count and scatter as estimates without skill do (1 / sqrt(bins - 1)): trials that a search drew near to
    each other scatter too little for the first reading.
    """
    if not np.any(kept):
        return {"missing": "no instrument is traded"}
    sharpes = np.array([evaluate.sharpe(r) for r in returns.T])
    as_found = deflated_sharpe(kept, sharpes, trials=choices)
    noise = 1.0 / math.sqrt(max(2, len(kept)) - 1)
    as_noise = deflated_sharpe(kept, sharpes, trials=independent_trials(returns), least_scatter=noise)
    return min(as_found, as_noise, key=lambda d: d.probability).to_dict()
