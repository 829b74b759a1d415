"""Where everything lies: the state of one instrument in two flat arrays, and the columns of a row.

Times and prices are whole numbers, flows and variances real ones. Column numbers come from ``schema``, so
that the order of the declaration is the order of the rows.
"""

from __future__ import annotations

import math
from datetime import time
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features import declaration as d
from features import schema
from market.types import DEPTH
from market.venues import VENUES

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]

# Divisors are sizes and distances, positive by construction: no check for zero inside the step. Without
# Numba's runtime an array is a plain pointer: nothing counts references (a quarter of a step's time), and
# code that would allocate does not compile.
JIT: Final[dict[str, Any]] = {"error_model": "numpy", "_nrt": False}
jit = njit(**JIT)

N_COLUMNS: Final = schema.F
LEVELS: Final = d.OFI_LEVELS
SLOPE_LEVELS: Final = 10
COST_LEVEL_SIZES: Final = 3.0
SPREAD_CAP_TICKS: Final = 8
WIDEST_GAP_TICKS: Final = 20
SINCE_BOOK_CAP_S: Final = 3.0
RACE: Final = math.sqrt((1 - 0.5) / (1 + 0.5))
RACE_NORM: Final = 2 * math.atan(RACE)
GRID_NS: Final = 250_000_000
"""Mids are remembered on this grid: a return over w seconds spans w to w + 0.25 s, never less."""
PER_SECOND: Final = 4
DAY_S: Final = 86_400
MOSCOW_NS: Final = 3 * 3600 * 1_000_000_000
# Weight exp(-d/5) of a price d ticks from mid, by half ticks; beyond the table it is under 3e-6, taken as
# none.
ALIGN_WEIGHT: Final = np.array([math.exp(-h / 10) for h in range(128)])
LOG_OF_LOTS: Final = np.array([math.log(1.0 + lots) for lots in range(4096)])
"""log(1 + lots), the very values of ``math.log``: half of a step's logarithms are of small whole numbers."""
DEPTH_WEIGHT: Final = np.array([math.exp(-m / 2) for m in range(LEVELS)])
N_DECAY: Final = len(d.LEVEL_DECAYS)
LEVEL_WEIGHT: Final = np.array([[math.exp(-x * m) for x in d.LEVEL_DECAYS] for m in range(DEPTH)])
N_NEAR: Final = len(d.DISTANCES_TICKS)
NEAR_HALF_TICKS: Final = 200
"""A price further from mid than this weighs as one at this distance: under 1 % at the widest scale."""
NEAR_WEIGHT: Final = np.array(
    [[math.exp(-h / 2 / x) for x in d.DISTANCES_TICKS] for h in range(NEAR_HALF_TICKS)]
)
VOL_DECAY: Final = np.array([math.exp(-1 / w) for w in d.VOL_WINDOWS_S])
RETURN_S: Final = np.array(d.RETURN_WINDOWS_S, np.int64)
ROOT_RETURN: Final = np.sqrt(np.array(d.RETURN_WINDOWS_S, float))
ROOT_MOMENTUM: Final = np.sqrt(np.array(d.MOMENTUM_WINDOWS_S, float))
ROOT_LEADER: Final = np.sqrt(np.array(d.LEADER_WINDOWS_S, float))
STEPS: Final = np.array(d.STEPS, np.int64)
ACTIVITY_SCALE: Final = np.array([1000.0 / w for w in d.ACTIVITY_WINDOWS_S])

KINDS: Final = tuple(VENUES)
"""Kinds of instruments whose venue's usual day is known."""


def _wall_s(at: time) -> float:
    return at.hour * 3600.0 + at.minute * 60.0


_SESSIONS = [VENUES[kind].continuous() for kind in KINDS]
N_SESSION: Final = max(len(sessions) for sessions in _SESSIONS)
OPENS_S: Final = np.full((len(KINDS), N_SESSION), np.inf)
CLOSES_S: Final = np.full((len(KINDS), N_SESSION), -np.inf)
for _k, _sessions in enumerate(_SESSIONS):
    for _n, (_open, _close) in enumerate(_sessions):
        OPENS_S[_k, _n], CLOSES_S[_k, _n] = _wall_s(_open), _wall_s(_close)
SESSION_CAP_MIN: Final = 30.0

# Whole numbers in the state. Clock, venue and what is known of a leader outlive a gap of this instrument.
NONE: Final = -(1 << 62)
CLOCK, VENUE, LEADER_FROM, LEADER_NS, LEADER_MID2, LEADER_BEFORE = range(6)
KEPT: Final = 6
VALID_NS, WARM_FROM, HAS_PREV, MID2, SPREAD, SPREAD_NS, MID_NS, GRID, GRID_FILLED, LAST_TRADE = range(6, 16)
TAPE_NS, LAST_RETURN, STEP_AT, MICRO_NS, N_PREV_BID, N_PREV_ASK = range(16, 22)
LOST: Final = 22
"""A side's loss that waits for its second to pass: when, at which price, lots before, lots after."""
VPIN_SIZE, VPIN_LOTS, VPIN_SIGNED, VPIN_FULL, VPIN_SUM, VPIN_TOTAL = range(30, 36)
RING: Final = 36
RING_SIZE: Final = 256
STEP_RING: Final = RING + RING_SIZE
STEP_RING_SIZE: Final = 16
BUCKETS: Final = 50
VPIN_RING: Final = STEP_RING + STEP_RING_SIZE
PREV: Final = VPIN_RING + 2 * BUCKETS
I_SIZE: Final = PREV + 4 * DEPTH

# Real numbers in the state: exponential windows one after another, the columns of a window side by side.
N_FLOW: Final = len(d.FLOW_WINDOWS_S)
N_TAPE: Final = len(d.TAPE_WINDOWS_S)
N_INTENSITY: Final = len(d.INTENSITY_WINDOWS_S)
N_QUOTE: Final = len(d.QUOTE_WINDOWS_S)
N_ACTIVITY: Final = len(d.ACTIVITY_WINDOWS_S)
N_VOL: Final = len(d.VOL_WINDOWS_S)
N_EMA: Final = len(d.EMA_WINDOWS_S)
N_MOMENTUM: Final = len(d.MOMENTUM_WINDOWS_S)
N_LEADER: Final = len(d.LEADER_WINDOWS_S)
N_BALANCE: Final = N_DECAY + N_NEAR + 1
N_SIGNAL: Final = N_BALANCE + N_NEAR
"""Imbalances by level, by distance and at the touch, then the logs of depth by distance."""
SPREADS: Final = 4
BINS: Final = 5
STATES: Final = SPREADS * BINS
"""Of the micro-price: spreads of 1, 2, 3, 4 and more ticks, imbalances by size; the sign is symmetry."""

LEADER_MEAN: Final = 0
LEADER_VARIANCE: Final = N_LEADER
F_KEPT: Final = N_LEADER + 1
FLOW: Final = F_KEPT
FLOW_STRIDE: Final = LEVELS + 1
QUOTE: Final = FLOW + N_FLOW * FLOW_STRIDE
ACTIVITY: Final = QUOTE + 4 * N_QUOTE
SIGNAL: Final = ACTIVITY + N_ACTIVITY
EMA: Final = SIGNAL + N_SIGNAL
MID_EMA: Final = EMA + N_EMA * N_SIGNAL
MEAN_DEPTH: Final = MID_EMA + N_MOMENTUM
DEPTH_NOW: Final = MEAN_DEPTH + 1
REFILL: Final = DEPTH_NOW + 1
COVARIANCE: Final = REFILL + 4
LEVEL_SHARE: Final = COVARIANCE + LEVELS * LEVELS
COMPONENT: Final = LEVEL_SHARE + LEVELS
VARIANCE: Final = COMPONENT + LEVELS
VARIANCE_WEIGHT: Final = VARIANCE + N_VOL
BIPOWER: Final = VARIANCE_WEIGHT + N_VOL
BIPOWER_WEIGHT: Final = BIPOWER + N_VOL
MICRO_SUM: Final = BIPOWER_WEIGHT + N_VOL
MICRO_COUNT: Final = MICRO_SUM + STATES
MICRO_SIGNED: Final = MICRO_COUNT + STATES
MICRO_WAITING: Final = MICRO_SIGNED + STATES
TAPE: Final = MICRO_WAITING + STATES
TAPE_STRIDE: Final = 5
"""Lots bought and sold, trades bought and sold, and lots times price."""
INTENSITY: Final = TAPE + N_TAPE * TAPE_STRIDE
SCRATCH: Final = INTENSITY + 2 * N_INTENSITY
"""Arguments of a row's logarithms; nothing is remembered in it."""

_column = schema.NAMES.index
C_OFI: Final = _column("ofi_l1_1s")
C_ALIGNED: Final = _column("aligned_flow_1s")
C_INTEGRATED: Final = _column("integrated_ofi_1s")
C_PRESSURE: Final = _column("trade_pressure_0.25s")
C_VOLUME: Final = _column("trade_volume_0.25s")
C_INTENSITY: Final = _column("intensity_buy_0.1s")
C_QUOTE: Final = _column("intensity_bid_up_1s")
C_ACTIVITY: Final = _column("activity_2s")
C_SINCE_SPREAD: Final = _column("since_spread_change")
C_SINCE_MID: Final = _column("since_mid_change")
C_LEVELS: Final = _column("levels_0.1")
C_DEPTH: Final = _column("depth_2")
C_IMBALANCE_5: Final = _column("imbalance_d5")
C_WEIGHTED_MID: Final = _column("weighted_mid_dev")
C_MICRO: Final = _column("micro_price_dev")
C_RACE: Final = _column("queue_race")
C_TOUCH: Final = _column("touch_log")
C_SLOPE: Final = _column("slope_bid")
C_COST: Final = _column("cost_buy")
C_GAP: Final = _column("gap_1")
C_SPREAD: Final = _column("spread_ticks")
C_TRADE: Final = _column("trade_flow_0.25s")
C_BALANCE: Final = _column("trade_balance_0.25s")
C_VWAP: Final = _column("vwap_5s")
C_LAST_TRADE: Final = _column("last_trade_dev")
C_VPIN: Final = _column("vpin")
C_VOL: Final = _column("vol_10s")
C_BIPOWER: Final = _column("bipower_10s")
C_VOL_RATIO: Final = _column("vol_ratio")
C_RETURN: Final = _column("return_1s")
C_MOMENTUM: Final = _column("momentum_0.25s")
C_STEP: Final = _column("step_1")
C_LEADER: Final = _column("leader_move_1s")
C_REFILL: Final = _column("resilience_bid")
C_SINCE_BOOK: Final = _column("since_book")
C_DAY: Final = _column("day_sin")
C_SESSION: Final = _column("since_open")

N_ASINH: Final = C_VOLUME
"""The columns before this one are asinh of what SCRATCH holds, those up to N_LOG are log(1 + it)."""
N_LOG: Final = C_SINCE_MID + 1
F_SIZE: Final = SCRATCH + N_LOG

# The kernel spells these windows out, as powers of one exponential, and their places in the list.
assert d.FLOW_WINDOWS_S == (1, 5, 20) and d.TAPE_WINDOWS_S == (0.25, 1, 5, 20, 60, 300)
assert d.INTENSITY_WINDOWS_S == (0.1, 1, 10) and d.QUOTE_WINDOWS_S == (1, 10)
assert d.ACTIVITY_WINDOWS_S == (2, 20) and d.EMA_WINDOWS_S == (2, 10, 60, 300)
assert d.MOMENTUM_WINDOWS_S == (0.25, 1, 5, 20, 60, 300) and d.LEADER_WINDOWS_S == (1, 5, 20)
assert d.TAPE_WINDOWS_S[2:] == d.VWAP_WINDOWS_S and d.VOL_WINDOWS_S[1] == 60
assert C_OFI == 0 and C_LEVELS == N_LOG and C_DEPTH == C_LEVELS + N_BALANCE * (1 + N_EMA)
