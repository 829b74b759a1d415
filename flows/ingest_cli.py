"""``scalper ingest``: foreign files in, a clean recording out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flows.verbs import VerbMaker
from market.errors import ConfigError

if TYPE_CHECKING:
    from market.importers import ImportOptions

KINDS = {
    "own": "a recording of this product: checked and cleaned again",
    "moex-rts": "RTS future of 2013, *.book20.parquet with *.trades.parquet",
    "qsh": "QScalp archives: Quotes, Deals, OrdLog, AuxInfo (gzip or plain)",
    "lobster": "LOBSTER: the zip, or message and orderbook CSV",
    "binance": "raw Binance captures of one session, all its files",
    "fi2010": "an FI-2010 matrix, variant DecPre",
    "moex-sber": "ob.csv and orders.csv of the MOEX SBER sample",
    "jsonl": "scalper data export, or the original system's books",
    "columns": "any CSV or Parquet, with --columns mapping.yaml",
}
"""Named here as well as in ``market.importers``, so that --help loads no library; a test compares them."""

EXAMPLES = """\
scalper ingest GAZP.2017-04-24.Quotes.qsh GAZP.2017-04-24.Deals.qsh --out runtime/gazp
  scalper ingest qsh archive/2018-10 --out runtime/october --tick-value 1
  scalper ingest LOBSTER_SampleFile_AMZN_2012-06-21_5.zip --out runtime/amzn
  scalper ingest binance usdm_btcusdt_20240718.gz usdm_btcusdt_20240719.gz --out runtime/btc
  scalper ingest ob.csv orders.csv --out runtime/sber
  scalper ingest Train_Dst_NoAuction_DecPre_CF_7.txt --out runtime/fi2010
  scalper ingest books.jsonl --instrument share --lot 10 --tick 0.01 --out runtime/books
  scalper ingest columns book.csv trades.csv --columns mapping.yaml --out runtime/mine
  scalper ingest ../downloads/rts --out runtime/rts
  scalper ingest path/to/recording --out runtime/clean

kinds (found out from the files unless named first; only columns has to be named):
"""


def add(verb: VerbMaker) -> None:
    kinds = "\n".join(f"  {kind:<10} {what}" for kind, what in KINDS.items())
    sub = verb("ingest", _ingest, "turn foreign files into a clean recording",
               f"{EXAMPLES}{kinds}\n\nclocks, prices and traps of each kind: docs/importers.md")  # fmt: skip
    sub.usage = "scalper ingest [KIND] FILE [FILE ...] --out DIR [options]"
    sub.add_argument("sources", nargs="+", metavar="[KIND] FILE", help="files of one kind, or one folder")
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="the recording to write")
    add_facts(sub)


def add_facts(sub: argparse.ArgumentParser) -> None:
    """The flags that say what a foreign file does not; ``options_of`` reads them."""
    facts = sub.add_argument_group("what the files do not say (an error names what is missing)")
    facts.add_argument("--ticker", help="instead of the one in the files (one instrument only)")
    facts.add_argument("--class-code", metavar="CODE", help="board, e.g. TQBR or SPBFUT")
    facts.add_argument("--instrument", choices=("share", "future"), help="what is traded")
    facts.add_argument("--lot", type=int, metavar="N", help="shares in a lot")
    facts.add_argument("--tick", metavar="PRICE", help="the price step, e.g. 0.01")
    facts.add_argument("--tick-value", metavar="MONEY", help="what one lot gains when the price rises a tick")
    facts.add_argument("--size-step", metavar="SIZE", help="size of one recorded lot, where fractions trade")
    facts.add_argument("--currency", metavar="CODE", help="e.g. rub")
    facts.add_argument("--tariff", help="investor, trader, premium, simulated or free (default: trader)")
    facts.add_argument("--instruments", type=Path, metavar="YAML", help="these facts by ticker, for several")
    facts.add_argument("--columns", type=Path, metavar="YAML", help="the mapping of kind columns")
    sub.add_argument(
        "--book-every", type=float, default=0.0, metavar="MS",
        help="keep only the last book of each so many milliseconds (full logs are large; default: all)",
    )  # fmt: skip


def _ingest(args: argparse.Namespace) -> int:
    from market.importers import ingest

    kind, sources = kind_and_sources(args.sources)
    recording, _ = ingest(sources, args.out, kind=kind, options=options_of(args), progress=print)
    print(
        f"{recording.info.watermark} recording at {args.out}, source {recording.info.source}, "
        f"data hash {recording.data_hash()[:12]}"
    )
    return 0


def kind_and_sources(words: list[str]) -> tuple[str | None, list[Path]]:
    """The kind, if the first word is one, and the files. A file called like a kind is written ./qsh."""
    first, *rest = words
    if first in KINDS:
        if not rest:
            raise ConfigError(
                f"kind {first} of what? Name the files, or write ./{first} for a file of that name"
            )
        return first, [Path(word) for word in rest]
    if first.replace("-", "").isalnum() and rest and not Path(first).exists():
        raise ConfigError(f"{first!r} is neither a file nor a kind; kinds: {', '.join(KINDS)}")
    return None, [Path(word) for word in words]


def options_of(args: argparse.Namespace) -> ImportOptions:
    """The facts given by the flags of ``add_facts``. ConfigError names a flag that cannot be."""
    from flows import column_map
    from market.fees import tariff
    from market.importers import ImportOptions
    from market.importers.fixed import nano_of_text
    from market.importers.instruments import listed

    def nano(name: str) -> int | None:
        text = getattr(args, name)
        if text is None:
            return None
        flag = f"--{name.replace('_', '-')}"
        value = nano_of_text(text, flag)
        if value <= 0:
            raise ConfigError(f"{flag} {text}: it has to be above zero")
        return value

    if args.lot is not None and args.lot < 1:
        raise ConfigError(f"--lot {args.lot}: it has to be at least 1")
    if not 0 <= args.book_every <= 3_600_000:
        raise ConfigError(f"--book-every {args.book_every}: 0 to 3600000 milliseconds")
    if args.tariff is not None:
        tariff(args.tariff)
    return ImportOptions(
        ticker=args.ticker,
        class_code=args.class_code,
        instrument_kind=args.instrument,
        lot=args.lot,
        tick_nano=nano("tick"),
        tick_value_nano=nano("tick_value"),
        size_step_nano=nano("size_step"),
        currency=args.currency,
        tariff=args.tariff,
        book_every_ns=round(args.book_every * 1e6),
        columns=None if args.columns is None else column_map.read(args.columns, "--columns"),
        instruments={}
        if args.instruments is None
        else listed(column_map.read(args.instruments, "--instruments")),
    )
