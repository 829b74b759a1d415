"""The YAML files of ``scalper ingest`` as plain dictionaries, which the importers check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from market.errors import ConfigError

EXAMPLE = """\
# scalper ingest columns book.csv trades.csv --columns this.yaml --out DIR
instrument: {ticker: SBER, class_code: TQBR, kind: share, lot: 10, tick: "0.01"}
price_unit: "0.01"          # what 1 in a price column means: these prices are kopecks
books:
  recv_time: {column: ts, unit: ns}            # ns, us, ms, s or iso; zone: Europe/Moscow for wall time
  bid_price: bid_{level}_price                 # {level} counts from 1
  bid_size: bid_{level}_qty
  ask_price: ask_{level}_price
  ask_size: ask_{level}_qty
trades:
  recv_time: {column: ts, unit: ns}
  price: price
  size: qty
  side: {column: side, buy: [1, B], sell: [2, S]}
"""


def read(path: Path, flag: str) -> dict[str, Any]:
    """The mapping in ``path``, all values as text; ConfigError, which names ``flag``, when it is none."""
    try:
        # The base loader reads every value as text: 0.01 must not become a float, nor "n" a truth value.
        raw = yaml.load(path.read_text("utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise ConfigError(f"{flag} {path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag} {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{flag} {path} has to be a mapping of keys; see docs/importers.md")
    return raw
