"""How long every collection is that can be reached from an object, by the path that leads to it."""

from __future__ import annotations

import types
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Any

COLLECTIONS = (dict, list, set, frozenset, deque)
OURS = ("live", "features", "models", "market", "tests", "test_", "sizes")
"""Into objects of these packages; what libraries keep is theirs."""


def sizes(root: object) -> Counter[str]:
    """Path -> length. Members of one collection share a path, ``[]``, so that lengths add up."""
    found: Counter[str] = Counter()
    seen: set[int] = set()
    waiting: list[tuple[str, object]] = [("", root)]
    while waiting:
        path, thing = waiting.pop()
        if id(thing) in seen or not _of_interest(thing):
            continue
        seen.add(id(thing))
        if isinstance(thing, COLLECTIONS):
            found[path] += len(thing)
        waiting += [(path + step, inner) for step, inner in _inside(thing)]
    return found


def _of_interest(thing: object) -> bool:
    if isinstance(thing, (*COLLECTIONS, tuple, types.FunctionType, types.MethodType)):
        return True
    return type(thing).__module__.startswith(OURS)


def _inside(thing: object) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, dict):
        yield from (("[]", value) for value in thing.values())
    elif isinstance(thing, (*COLLECTIONS, tuple)):
        yield from (("[]", item) for item in thing)
    elif isinstance(thing, types.MethodType):
        yield "", thing.__self__
    elif isinstance(thing, types.FunctionType):
        yield from (("()", cell.cell_contents) for cell in thing.__closure__ or () if _filled(cell))
    else:
        yield from ((f".{name}", value) for name, value in _attributes(thing).items())


def _attributes(thing: object) -> Mapping[str, Any]:
    slots = [name for kind in type(thing).__mro__ for name in _names(kind.__dict__.get("__slots__", ()))]
    values = {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
    return values | getattr(thing, "__dict__", {})


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
