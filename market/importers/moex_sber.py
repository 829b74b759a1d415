"""Kind ``moex-sber``: the ten-level SBER sample of the Moscow Exchange, a book and a trades CSV.

``ob.csv``: ``exch_epoch`` (ns UTC), prices in kopecks, sizes in lots. ``orders.csv``: market orders, which
are trades: at each of them the touch of the book loses just that size; side 1 takes asks, side 0 bids.
"""

from __future__ import annotations

from pathlib import Path

from market.importers.column_mapping import mapping_of
from market.importers.columns import load_mapped
from market.importers.files import Look
from market.importers.instruments import MOEX_LOTS
from market.importers.source import Imported, Importer, ImportOptions, Progress

MAPPING = mapping_of(
    {
        "instrument": {
            "ticker": "SBER", "class_code": "TQBR", "kind": "share", "lot": MOEX_LOTS["SBER"], "tick": "0.01",
        },
        "price_unit": "0.01",
        "books": {
            "recv_time": "exch_epoch",
            "bid_price": "bid_{level}_price",
            "bid_size": "bid_{level}_qty",
            "ask_price": "ask_{level}_price",
            "ask_size": "ask_{level}_qty",
        },
        "trades": {
            "recv_time": "exch_epoch",
            "price": "price",
            "size": "qty",
            "side": {"column": "side", "buy": ["1"], "sell": ["0"]},
        },
    }
)  # fmt: skip


def accepts(seen: Look) -> bool:
    return seen.first_line() == b"exch_epoch,side,price,qty" or seen.first_line().startswith(
        b"exch_epoch,bid_1_price,bid_2_price"
    )


def load(paths: tuple[Path, ...], options: ImportOptions, progress: Progress) -> Imported:
    imported = load_mapped(paths, MAPPING, options, progress, "moex-sber")
    imported.provenance["recv_ns"] = "the exchange's stamp: the files hold no receive time"
    imported.provenance["trades"] = "orders.csv read as market orders: each takes its size from the touch"
    imported.provenance["assumed"] = f"a lot of {MOEX_LOTS['SBER']} shares, a price step of 0.01 rouble"
    return imported


MOEX_SBER = Importer("moex-sber", "ob.csv and orders.csv of the MOEX SBER sample", accepts, load)
