"""InstrumentsService: what is traded here, under every name it has."""

from __future__ import annotations

from collections.abc import Iterator

from market.contract import invest_pb2 as pb
from market.contract.convert import quotation
from market.paper import messages_market
from market.paper.behaviours import Behaviours
from market.paper.exchange import Exchange
from market.paper.listing import Listing
from market.paper.refusals import Refusal
from market.paper.requests import instrument_id, listing_of


class InstrumentCalls:
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def behaviours(self) -> Behaviours:
        return {
            "InstrumentsService/ShareBy": self.share_by,
            "InstrumentsService/Shares": self.shares,
            "InstrumentsService/FutureBy": self.future_by,
            "InstrumentsService/Futures": self.futures,
            "InstrumentsService/GetInstrumentBy": self.get_instrument_by,
            "InstrumentsService/FindInstrument": self.find_instrument,
            "InstrumentsService/GetFuturesMargin": self.get_futures_margin,
        }

    def _kind(self, kind: str) -> Iterator[Listing]:
        return (listing for listing in self._exchange.listings if listing.instrument.kind == kind)

    def _by_request(self, request: pb.InstrumentRequest, kind: str | None = None) -> Listing:
        if not request.id:
            raise Refusal("30093")
        if request.id_type == pb.INSTRUMENT_ID_TYPE_TICKER and not request.class_code:
            raise Refusal("30013")
        for listing in self._exchange.listings:
            i = listing.instrument
            key = {
                pb.INSTRUMENT_ID_TYPE_FIGI: i.figi,
                pb.INSTRUMENT_ID_TYPE_TICKER: i.ticker if i.class_code == request.class_code else None,
                pb.INSTRUMENT_ID_TYPE_UID: i.uid,
                pb.INSTRUMENT_ID_TYPE_POSITION_UID: i.uid,
            }.get(request.id_type)
            if key == request.id and kind in (None, i.kind):
                return listing
        raise Refusal("50002", request.id)

    async def share_by(self, request: pb.InstrumentRequest) -> pb.ShareResponse:
        return pb.ShareResponse(instrument=messages_market.share(self._by_request(request, "share")))

    async def shares(self, request: pb.InstrumentsRequest) -> pb.SharesResponse:
        return pb.SharesResponse(instruments=[messages_market.share(x) for x in self._kind("share")])

    async def future_by(self, request: pb.InstrumentRequest) -> pb.FutureResponse:
        return pb.FutureResponse(instrument=messages_market.future(self._by_request(request, "future")))

    async def futures(self, request: pb.InstrumentsRequest) -> pb.FuturesResponse:
        return pb.FuturesResponse(instruments=[messages_market.future(x) for x in self._kind("future")])

    async def get_instrument_by(self, request: pb.InstrumentRequest) -> pb.InstrumentResponse:
        return pb.InstrumentResponse(instrument=messages_market.instrument(self._by_request(request)))

    async def find_instrument(self, request: pb.FindInstrumentRequest) -> pb.FindInstrumentResponse:
        query = request.query.lower()
        found = []
        for listing in self._exchange.listings:
            i = listing.instrument
            if any(query in text.lower() for text in (i.uid, i.figi, i.ticker, i.name)):
                found.append(messages_market.instrument_short(listing))
        if request.HasField("instrument_kind"):
            found = [short for short in found if short.instrument_kind == request.instrument_kind]
        return pb.FindInstrumentResponse(instruments=found)

    async def get_futures_margin(self, request: pb.GetFuturesMarginRequest) -> pb.GetFuturesMarginResponse:
        """Of one lot at the current price; the paper exchange asks the same of buyers and sellers."""
        _, listing = listing_of(self._exchange, instrument_id(request))
        i = listing.instrument
        if i.kind != "future":
            raise Refusal("30041", i.ticker)
        margin = messages_market.lot_margin(listing)
        return pb.GetFuturesMarginResponse(
            initial_margin_on_buy=margin, initial_margin_on_sell=margin,
            min_price_increment=quotation(i.tick_nano),
            min_price_increment_amount=quotation(i.tick_value_nano // i.lot),
        )  # fmt: skip
