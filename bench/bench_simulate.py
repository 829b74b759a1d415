"""How fast the simulated market is: eight hours of every preset on one core, and the same source in plain
Python.

Run from the project's root: ``python bench/run.py simulate``. The peer is the kernel itself with Numba
switched off, in a process of its own, on a shorter span: the same model, the same random numbers, and (this
is checked) the same market to the last lot. Times are the best of several runs.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

from timing import best_s

from market.simulator import Played, SimSpec, play, simulate_market
from market.simulator_presets import PRESETS, SMALL
from market.types import SECOND_NS

REPETITIONS = 3
DAY_ROWS = 8 * 3600 * 4
SHORT_ROWS = 120 * 4
DT_NS = SECOND_NS // 4
LIMIT_S = 5.0
PEER = "plain-python"


def digest(played: Played) -> str:
    """SHA-256 of the books and trades; times aside, since NumPy's exp is another one in the last bit."""
    arrays = (played.bid_px, played.bid_qty, played.ask_px, played.ask_qty, played.trade_px, played.trade_qty)
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()


def short() -> Played:
    return play(SMALL, SHORT_ROWS, DT_NS, 1)


def peer() -> None:
    """What the process without Numba does."""
    seconds = best_s(short, 1)
    played = short()
    print(seconds, played.events, digest(played))


def main() -> None:
    short()  # compiles
    for name, preset in PRESETS.items():
        played = play(preset, DAY_ROWS, DT_NS, 1)
        seconds = best_s(lambda preset=preset: play(preset, DAY_ROWS, DT_NS, 1), REPETITIONS)  # type: ignore[misc]
        verdict = "" if seconds < LIMIT_S else f"  (over {LIMIT_S:g} s)"
        print(
            f"{name:<13} 8 h of books: {seconds:5.2f} s, {played.events / 28_800:3.0f} market events/s; "
            f"{played.events / seconds / 1e6:5.2f} M events/s{verdict}"
        )
    whole_s = best_s(lambda: simulate_market([SimSpec("SIMA", "SMALL")], hours=8.0), REPETITIONS)
    print(f"SMALL with instruments, receive times and oracle, 8 h: {whole_s:.2f} s")
    mine_s, mine = best_s(short, 20), short()
    # NumPy warns that 32-bit words wrap around, which is what they are for.
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "ignore"}
    said = subprocess.run(
        [sys.executable, __file__, PEER], env=env, capture_output=True, text=True, check=True
    ).stdout.split()
    if said[2] != digest(mine):
        raise SystemExit("the compiled and the plain market differ")
    print(
        f"peer, the same source in plain Python: {int(said[1]) / float(said[0]):,.0f} events/s, same market"
    )
    print(f"ratio  compiled : plain Python  {float(said[0]) / mine_s:,.0f} x")


if __name__ == "__main__":
    peer() if PEER in sys.argv else main()
