"""The API's own error codes: what the paper exchange says no with."""

from __future__ import annotations

import grpc

from market.errors import BrokerError

_STATUS_BY_CLASS = {
    "1": grpc.StatusCode.UNIMPLEMENTED,
    "3": grpc.StatusCode.INVALID_ARGUMENT,
    "4": grpc.StatusCode.PERMISSION_DENIED,
    "5": grpc.StatusCode.NOT_FOUND,
    "7": grpc.StatusCode.INTERNAL,
    "8": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "9": grpc.StatusCode.FAILED_PRECONDITION,
}

_TEXTS = {
    "12001": "method is not implemented by the paper exchange",
    "30002": "the period is longer than 14 days",
    "30003": "from is in the past or after to",
    "30004": "to is missing",
    "30011": "interval is missing or invalid",
    "30013": "class_code is required when id_type is ticker",
    "30014": "the period is too long for this interval",
    "30015": "quantity is missing",
    "30017": "price is missing or its units and nano have different signs",
    "30019": "direction is missing",
    "30020": "direction is invalid",
    "30021": "account_id is missing",
    "30025": "order_type is missing",
    "30026": "order_type is invalid",
    "30027": "order_id is missing",
    "30028": "order_id is not a UUID",
    "30029": "idempotency_key is missing",
    "30030": "idempotency_key is not a UUID of at most 36 characters",
    "30031": "depth is missing",
    "30032": "depth is invalid: 1, 10, 20, 30, 40 or 50",
    "30034": "not enough balance",
    "30036": "stop_price is missing",
    "30037": "stop_order_type is missing",
    "30038": "stop_order_type is invalid",
    "30039": "trailing_data is invalid",
    "30040": "expire_date is invalid",
    "30041": "the method is for futures only",
    "30042": "not enough assets for a margin trade",
    "30043": "expiration_type is missing",
    "30044": "expiration_type is invalid",
    "30047": "the currency is not the one of settlement",
    "30051": "margin trading is off for this account",
    "30053": "the stop order was not accepted",
    "30055": "order_id is longer than 36 characters",
    "30057": "the order is a duplicate, but its report was not found",
    "30059": "the order cannot be cancelled",
    "30060": "the stop order cannot be cancelled",
    "30063": "expire_date is out of range: it lies in the past",
    "30069": "limit is invalid: at most 1000",
    "30078": "price is not a multiple of min_price_increment",
    "30079": "instrument is not available for trading",
    "30080": "quantity must be positive",
    "30081": "the account is closed",
    "30085": "price_type POINT is for futures and bonds only",
    "30093": "instrument id is missing",
    "30096": "the order was rejected, try again later",
    "30099": "the price is outside the limits of this instrument",
    "30100": "price must be positive",
    "30102": "a required parameter is wrong",
    "30104": "price_type is invalid",
    "30105": "exchange_order_type is invalid",
    "30106": "status is invalid",
    "30107": "negative values are not allowed",
    "30210": "trailing data needs indent and spread",
    "30211": "indent_type is missing",
    "30212": "spread_type is missing",
    "30220": "limit and candle_source_type cannot be used together",
    "30227": "the order was cancelled",
    "30228": "from or limit is required",
    "30240": "the order may open an uncovered position: set confirm_margin_trade",
    "30254": "time_in_force is invalid here",
    "35001": "too many accounts",
    "40002": "insufficient privileges",
    "40003": "authentication token is missing or invalid",
    "50001": "exchange not found",
    "50002": "instrument not found",
    "50004": "account not found",
    "50005": "order not found",
    "50006": "stop order not found",
    "70001": "internal error",
    "70002": "internal network error",
    "80001": "too many open streams",
    "80002": "request limit exceeded",
    "80004": "the stream has no active subscription",
    "90003": "order amount exceeds the limit of one order",
}


class Refusal(BrokerError):
    """A request that the exchange refuses. ``code`` is the 5-digit code that travels as the error's
    details, ``metadata`` goes into the trailers beside the text.
    """

    def __init__(self, code: str, more: str = "") -> None:
        self.code, self.more = code, more
        self.metadata: dict[str, str] = {}
        self.text = f"{_TEXTS[code]}: {more}" if more else _TEXTS[code]
        super().__init__(f"{code} {self.text}")

    @property
    def status(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAUTHENTICATED if self.code == "40003" else _STATUS_BY_CLASS[self.code[0]]
