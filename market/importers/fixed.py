"""Decimal text as whole numbers, exactly: prices and sizes never pass through a float.

The fixed point is nano (nine decimals), so a value has to lie within +-9.2e9 units.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from market.errors import RecordingError
from market.types import I32, I64, NANO

INT32_MAX = 2**31 - 1
_FLUSH_TEXTS = 1 << 20
_LIMIT = 9_200_000_000_000_000_000
_TENS = np.array([10**k for k in range(19)], np.int64)


class BadDecimal(ValueError):
    """The text at ``index`` is no decimal number that fits."""

    def __init__(self, index: int, text: str) -> None:
        super().__init__(f"{text!r} is no decimal number of at most nine decimals within 9.2e9")
        self.index = index


@njit(cache=True)
def _one(data: NDArray[np.uint8], at: int, end: int, rounded: bool) -> tuple[int, bool]:
    """The number in ``data[at:end]`` in nano, and whether it is one. ``rounded``: more decimals may be."""
    while at < end and (data[at] == 32 or data[at] == 34):
        at += 1
    while end > at and (data[end - 1] == 32 or data[end - 1] == 34 or data[end - 1] == 13):
        end -= 1
    negative = False
    if at < end and (data[at] == 45 or data[at] == 43):
        negative = data[at] == 45
        at += 1
    mantissa, digits, decimals, exponent = 0, 0, 0, 0
    point = False
    while at < end:
        c = data[at]
        if 48 <= c <= 57:
            digits += 1
            if mantissa >= 100_000_000_000_000_000:
                # Eighteen digits are kept; beyond them only zeros of the fraction can be dropped.
                if not point or (c != 48 and not rounded):
                    return 0, False
            else:
                mantissa = mantissa * 10 + (c - 48)
                if point:
                    decimals += 1
        elif c == 46 and not point:
            point = True
        elif c == 101 or c == 69:
            at += 1
            down = False
            if at < end and (data[at] == 45 or data[at] == 43):
                down = data[at] == 45
                at += 1
            if at >= end or end - at > 3:
                return 0, False
            while at < end:
                if not 48 <= data[at] <= 57:
                    return 0, False
                exponent = exponent * 10 + (data[at] - 48)
                at += 1
            if down:
                exponent = -exponent
            break
        else:
            return 0, False
        at += 1
    if digits == 0:
        return 0, False
    shift = 9 - decimals + exponent
    if mantissa == 0:
        return 0, True
    if shift < 0:
        if shift < -18:
            return 0, rounded
        unit = _TENS[-shift]
        if mantissa % unit and not rounded:
            return 0, False
        mantissa = (mantissa + unit // 2) // unit
        shift = 0
    if shift > 18 or mantissa > _LIMIT // _TENS[shift]:
        return 0, False
    mantissa *= _TENS[shift]
    return (-mantissa if negative else mantissa), True


@njit(cache=True)
def _all(data: NDArray[np.uint8], starts: I64, ends: I64, out: I64, rounded: bool) -> int:
    """Fill ``out``; returns the index of the first text that is no number, or -1."""
    for i in range(len(starts)):
        value, good = _one(data, starts[i], ends[i], rounded)
        if not good:
            return i
        out[i] = value
    return -1


def nano_of_texts(texts: Sequence[str]) -> I64:
    """``texts`` in nano, int64. BadDecimal names the first that is not a number."""
    if not texts:
        return np.empty(0, np.int64)
    data = np.frombuffer(("\n".join(texts) + "\n").encode(), np.uint8)
    ends = np.flatnonzero(data == 10)
    if len(ends) != len(texts):
        index = next(i for i, text in enumerate(texts) if "\n" in text)
        raise BadDecimal(index, texts[index])
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
    out = np.empty(len(texts), np.int64)
    if (bad := _all(data, starts, ends, out, False)) >= 0:
        raise BadDecimal(bad, texts[bad])
    return out


class TextColumn:
    """Decimal texts that become nano integers block by block, so that the texts do not fill the memory."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._parts: list[I64] = []

    def extend(self, texts: list[str]) -> None:
        self._texts += texts
        if len(self._texts) > _FLUSH_TEXTS:
            self.flush()

    def flush(self) -> None:
        """BadDecimal when a text is no number."""
        if not all(type(text) is str for text in self._texts):
            self._texts = [str(text) for text in self._texts]
        self._parts.append(nano_of_texts(self._texts))
        self._texts = []

    def array(self) -> I64:
        self.flush()
        return np.concatenate(self._parts)


def nano_of_column(column: pa.ChunkedArray, *, rounded: bool = False) -> I64:
    """A column of text, integers or floats (by their shortest text) in nano. A null is not a number.
    ``rounded``: more than nine decimals are rounded, as times are that went through a float."""
    parts = [np.empty(0, np.int64)]
    done = 0
    for chunk in column.chunks:
        texts = chunk if pa.types.is_large_string(chunk.type) else chunk.cast(pa.large_string())
        if len(texts):
            _, offsets_buffer, data_buffer = texts.buffers()
            offsets = np.frombuffer(offsets_buffer, np.int64)[
                texts.offset : texts.offset + len(texts) + 1
            ].copy()
            data = np.frombuffer(data_buffer, np.uint8) if data_buffer else np.empty(0, np.uint8)
            out = np.empty(len(texts), np.int64)
            if (bad := _all(data, offsets[:-1], offsets[1:], out, rounded)) >= 0:
                raise BadDecimal(done + bad, str(texts[bad].as_py()))
            parts.append(out)
        done += len(texts)
    return np.concatenate(parts)


def nano_of_text(text: str, what: str) -> int:
    """One number from a person or a header, in nano; RecordingError calls it ``what``."""
    try:
        value = Decimal(text) * NANO
        if value.is_finite() and value == value.to_integral_value() and abs(value) < _LIMIT:
            return int(value)
    except InvalidOperation:
        pass
    raise RecordingError(f"{what} is {text!r}: a decimal number of at most nine decimals is needed")


def common_step(values_nano: I64) -> int:
    """The greatest number that divides all values, 0 when there is none above zero."""
    return int(np.gcd.reduce(values_nano)) if len(values_nano) else 0


def steps(values_nano: I64, step_nano: int, what: str) -> I32:
    """``values_nano`` as whole numbers of ``step_nano``, int32. RecordingError, calling them ``what``, when a
    value lies off the step or beyond 32 bits."""
    if step_nano <= 0:
        raise RecordingError(f"the step of {what} is {step_nano / NANO}: it has to be above zero")
    whole, rest = np.divmod(values_nano, step_nano)
    if rest.any():
        row = int(np.flatnonzero(rest)[0])
        raise RecordingError(
            f"{what}: {shown(int(values_nano[row]))} (value {row + 1:,}) is no multiple of "
            f"{shown(step_nano)}; give the right step"
        )
    return narrow(whole, what)


def narrow(values: I64, what: str) -> I32:
    """int64 to int32, or a RecordingError that says which step to choose."""
    if len(values) and (values.min() < -INT32_MAX or values.max() > INT32_MAX):
        worst = int(values[np.argmax(np.abs(values.astype(np.float64)))])
        raise RecordingError(
            f"{what}: {worst:,} steps do not fit 32 bits; choose a larger step (--tick for prices, "
            "--size-step for sizes) or leave such rows out"
        )
    return values.astype(np.int32)


def shown(nano: int) -> str:
    """``nano`` as decimal text."""
    return format((Decimal(nano) / NANO).normalize(), "f")
