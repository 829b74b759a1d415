"""``scalper card``: the version's card with what only a machine can say, its latency and the gate's answer.

The page of stage ``card`` depends on inputs alone; this one is made again wherever somebody looks, and the
one made by ``scalper publish`` lies beside the version in the registry.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.stages.common import BUNDLE, CARD, read_json
from flows.verbs import VerbMaker
from market.errors import ScalperError

if TYPE_CHECKING:
    from models.bundle import Bundle

OUT = Path("runtime/model_card.html")
DATA = "card.json"
PUBLISHED = Path("runtime/cards")
ROUNDS = 4
"""How often the golden rows are stepped through for a time."""


def add(verb: VerbMaker) -> None:
    sub = verb("card", _card, "write the model card with this machine's latency and the gate's answer",
               "scalper card --out runtime/model_card.html")  # fmt: skip
    sub.add_argument("--out", type=Path, default=OUT, metavar="FILE", help=f"the page (default {OUT})")
    sub.add_argument("--to", default="prod", metavar="ALIAS", help="to be judged for (default prod)")
    sub.add_argument("--json", type=Path, metavar="FILE", help="the same figures for a program, too")


def _card(args: argparse.Namespace) -> int:
    from models.card import write

    card, here = measured(Path.cwd(), args.to)
    write(card, args.out, here)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**card, "here": here}, indent=1) + "\n", encoding="utf-8")
    said = "passes" if here["gate"]["passed"] else "is refused by"
    print(f"{args.out}: version {card['manifest_sha256'][:12]} {said} the gate for {args.to}")
    return 0


def for_registry(workdir: Path) -> list[Path]:
    """The card to lie beside the published version: measured once for each bundle. Empty where the line of
    this folder has not come to its card."""
    if not (workdir / CARD / DATA).is_file():
        return []
    from models.card import write

    sha256 = read_json(workdir / CARD / DATA)["manifest_sha256"]
    path = workdir / PUBLISHED / sha256[:12] / OUT.name
    if not path.is_file():
        card, here = measured(workdir, "prod")
        write(card, path, here)
    return [path]


def measured(workdir: Path, alias: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The built version's card, and what belongs to this machine: ``models.card.parts``'s ``here``.

    The gate is asked about the version alone; ``scalper gate`` compares it with the incumbent, too.
    ScalperError when the card is of another bundle than the one that lies there.
    """
    from features.schema import schema_hash
    from flows import params as params_file
    from flows.signing import KEYS, signed_bundle
    from models.gate import evaluate, facts_of
    from models.inference import check_golden

    card = read_json(workdir / CARD / DATA)
    bundle = signed_bundle(workdir / BUNDLE, workdir / KEYS)
    if card["manifest_sha256"] != bundle.sha256:
        raise ScalperError(
            f"the card is of version {card['manifest_sha256'][:12]} and the bundle is {bundle.sha256[:12]}: "
            "run `scalper repro card`"
        )
    check_golden(bundle)
    times = latency(bundle)
    facts = facts_of(
        bundle.manifest, signed=bundle.signed, golden_ok=True, schema_now=schema_hash(),
        latency_p99_us=times[0]["p99, us"],
    )  # fmt: skip
    limits = params_file.load(workdir / params_file.PARAMS).gate
    return card, {"latency": times, "gate": evaluate(facts, alias, limits).to_dict()}


def latency(bundle: Bundle) -> list[dict[str, Any]]:
    """Microseconds a book over the golden rows: the whole ensemble first, then each member alone."""
    import numpy as np

    from models.bundle import GOLDEN

    with np.load(io.BytesIO(bundle.read(GOLDEN)), allow_pickle=False) as golden:
        rows, ticker = golden["X"], str(golden["ticker"])
    members = [name for name, weight in bundle.ensemble["members"].items() if weight > 0]
    asked: list[tuple[str, set[str] | None]] = [("ensemble", None)]
    asked += [(name, {name}) for name in sorted(members)]
    return [{"forecast": name, **_timed(bundle, only, ticker, rows)} for name, only in asked]


def _timed(bundle: Bundle, only: set[str] | None, ticker: str, rows: Any) -> dict[str, float]:
    import numpy as np

    from models.inference import Ensemble

    ensemble = Ensemble(bundle, [ticker])
    ensemble.use_only(only)
    rounds = []
    for _ in range(ROUNDS):
        micros = []
        for row in rows:
            begun = time.perf_counter_ns()
            scored = ensemble.step(ticker, row)
            if scored is not None:
                micros.append((time.perf_counter_ns() - begun) / 1e3)
        rounds.append([float(np.percentile(micros, q)) for q in (50, 99)])
    # The best of several rounds: what other programs do to this machine is not the version's doing.
    p50, p99 = np.min(rounds, axis=0)
    return {"p50, us": round(float(p50), 1), "p99, us": round(float(p99), 1)}
