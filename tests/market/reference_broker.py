"""The simulated broker again, plainly: one list of letters on their way, searched from the start."""

from __future__ import annotations

from dataclasses import dataclass, field

from reference_matching import ReferenceMatching

from market.latency import Latency


@dataclass
class Letter:
    arrives: int
    number: int
    kind: str
    name: str
    order: tuple | None = None


@dataclass
class Known:
    """What the exchange knows of an order: side, lots, deals as (price, lots), where it stands."""

    side: int
    lots: int
    deals: list[tuple[int, int]] = field(default_factory=list)
    status: str = "NEW"
    answered: int = 0

    @property
    def executed(self) -> int:
        return sum(lots for _, lots in self.deals)


class ReferenceBroker:
    """Answers are (time, name, status, lots executed, deals told)."""

    def __init__(self, matching: ReferenceMatching, latency: Latency) -> None:
        self.matching, self.latency = matching, latency
        self.letters: list[Letter] = []
        self.held: list[tuple[str, int]] = []  # cancels asked for while their order was on its way
        self.known: dict[str, Known] = {}
        self.answers: list[tuple] = []
        self.numbers = 0
        self.last_answer = 0

    def place(self, name: str, order: tuple, now: int) -> None:
        self._post("place", name, now, order)

    def cancel(self, name: str, now: int) -> None:
        coming = any(letter.kind == "place" and letter.name == name for letter in self.letters)
        if coming and name not in self.known:
            self.held.append((name, now))
        else:
            self._post_cancel(name, now)

    def query(self, name: str, now: int) -> None:
        self._post("query", name, now)

    def book(self, bids: list, asks: list, now: int) -> None:
        self.until(now - 1)
        self._book_fills(self.matching.on_book(bids, asks), now)

    def trade(self, px: int, qty: int, side: int, now: int) -> None:
        self.until(now - 1)
        self._book_fills(self.matching.on_trade(px, qty, side), now)

    def until(self, now: int) -> None:
        while True:
            due = sorted((x for x in self.letters if x.arrives <= now), key=lambda x: (x.arrives, x.number))
            if not due:
                return
            self.letters.remove(due[0])
            self._open(due[0])

    def heard(self, now: int) -> list[tuple]:
        """Takes the answers that have reached us by ``now``."""
        self.until(now)
        out = [answer for answer in self.answers if answer[0] <= now]
        self.answers = [answer for answer in self.answers if answer[0] > now]
        return out

    def _open(self, letter: Letter) -> None:
        name, now = letter.name, letter.arrives
        if letter.kind == "place" and name not in self.known:
            assert letter.order is not None
            side, lots, price, tif = letter.order
            known = self.known[name] = Known(side, lots)
            fills = self.matching.submit(name, side, lots, price, tif)
            known.deals = [(fill[2], fill[3]) for fill in fills]
            resting = any(order.name == name for order in self.matching.orders)
            if known.executed == lots:
                known.status = "FILLED"
            elif not resting:
                known.status = "CANCELLED"
            else:
                known.status = "PARTIAL" if known.executed else "NEW"
            known.answered = self._answer(name, list(known.deals), now)
        elif letter.kind in ("place", "query"):
            if name in self.known:
                self._answer(name, list(self.known[name].deals), now)
        elif name in self.known:
            if self.matching.cancel(name):
                self.known[name].status = "CANCELLED"
            self._answer(name, [], now)
        if letter.kind == "place":
            waiting = [asked for held, asked in self.held if held == name]
            self.held = [(held, asked) for held, asked in self.held if held != name]
            for asked in waiting:
                self._post_cancel(name, asked)

    def _book_fills(self, fills: list[tuple], now: int) -> None:
        for name, _, price, lots, _ in fills:
            known = self.known[name]
            known.deals.append((price, lots))
            known.status = "FILLED" if known.executed == known.lots else "PARTIAL"
            self._answer(name, [(price, lots)], now)

    def _post_cancel(self, name: str, asked: int) -> None:
        leaves = max(asked, self.known[name].answered) if name in self.known else asked
        self._post("cancel", name, leaves)

    def _post(self, kind: str, name: str, leaves: int, order: tuple | None = None) -> None:
        self.numbers += 1
        delay = self.latency.cancel if kind == "cancel" else self.latency.entry
        self.letters.append(Letter(leaves + delay(self.numbers), self.numbers, kind, name, order))

    def _answer(self, name: str, told: list[tuple[int, int]], now: int) -> int:
        self.numbers += 1
        self.last_answer = max(self.last_answer, now + self.latency.response(self.numbers))
        known = self.known[name]
        self.answers.append((self.last_answer, name, known.status, known.executed, told))
        return self.last_answer
