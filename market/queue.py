"""Where a resting order stands in the queue at its price, in whole numbers.

A recording shows how many lots stand at a price, not whose they are. Prints at the price come off the front;
the rest of a fall in the size is cancellations, and somebody has to say where they stood:

* ``risk_averse``: all behind us, as long as the size shown leaves room for that;
* ``probabilistic``: in front of us with the share ``F**n / (F**n + B**n)`` of them, where ``F`` lots stand in
  front of us and ``B`` behind. With ``n`` = 1 every lot is as likely to be cancelled as any other; the larger
  ``n``, the more the longer part of the queue loses.

Source of the formula: the family of probability queue models discussed by R. Cont and of hftbacktest's
``PowerProbQueueModel`` (docs, "Queue Models"): there ``f(B) / (f(B) + f(F))`` with ``f(x) = x**n`` is the
chance that a cancellation is behind us. Two things differ here: ``B`` is counted after the prints were taken
off, and everything is an integer. Lots ahead are kept in millionths (``PARTS``); the part of a cancellation
that was ahead is rounded down to a millionth, so rounding never brings us forward and small cancellations
still add up.
"""

from __future__ import annotations

PARTS = 1_000_000
"""Parts of a lot in which the queue ahead is counted."""

DEFAULT_POWER = 2
MAX_POWER = 8


def after_cancels(ahead: int, left: int, shown: int, power: int) -> int:
    """Parts ahead of us once a level that should hold ``left`` lots shows ``shown`` of them.

    ``ahead``: parts in front of us after the prints. ``left``: the size last shown minus the prints since, at
    least 0. The answer is never more than ``ahead`` nor than ``shown`` lots, and never below 0.
    """
    ahead = min(ahead, left * PARTS)  # more than was left there cannot stand before us
    cancelled = (left - shown) * PARTS
    if cancelled <= 0 or ahead == 0:
        return min(ahead, shown * PARTS)
    behind = left * PARTS - ahead
    front_weight, back_weight = ahead**power, behind**power
    from_front = cancelled * front_weight // (front_weight + back_weight)
    # No more can leave from behind than stands there, and none is left in front beyond what is shown.
    return max(0, min(ahead - from_front, shown * PARTS))


def whole_lots(parts: int) -> int:
    """Parts of lots as lots, rounded up: a started lot is still ahead of us."""
    return -(-parts // PARTS)
