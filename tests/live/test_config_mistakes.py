"""Every key of the configuration wrong in every way that people manage.

The law: whatever is written for a key, it loads as exactly what it says, or it is one sentence with the key's
full name, the line, and what is allowed. The keys and what is allowed are read off the schema: a new key is
tested without a word here. Of many ways to be wrong each key meets every fourth, each way every fourth key.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live import config
from live.config_schema import RunnerConfig
from market.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Key:
    """``name`` is dotted; ``kind`` the type of the value, or of each item of ``many``."""

    name: str
    kind: type
    many: bool
    optional: bool
    allowed: dict[str, Any]

    @property
    def line(self) -> int:
        return self.name.count(".") + 1

    def text(self, value: str) -> str:
        """A file in which ``value`` is written for this key and nothing else."""
        *above, last = self.name.split(".")
        lines = [f"{'  ' * depth}{part}:" for depth, part in enumerate(above)]
        return "\n".join([*lines, f"{'  ' * len(above)}{last}: {value}", ""])


def keys(cls: type = RunnerConfig, prefix: str = "") -> Iterator[Key]:
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        kind = hints[f.name]
        if dataclasses.is_dataclass(kind):
            yield from keys(kind, f"{prefix}{f.name}.")
            continue
        optional = isinstance(kind, types.UnionType)
        if optional:
            kind = next(a for a in typing.get_args(kind) if a is not type(None))
        many = typing.get_origin(kind) is tuple
        kind = typing.get_args(kind)[0] if many else kind
        yield Key(prefix + f.name, kind, many, optional, dict(f.metadata))


KEYS = list(keys())
NUMBERS = [k for k in KEYS if k.kind in (int, float) and not k.many]
OF = {kind: [k for k in KEYS if k.kind is kind and not k.many] for kind in (bool, str)}
LISTS = [k for k in KEYS if k.many]

NO_NUMBERS = (
    "5%", "0,5", "1.000.000", "1 000", "5s", "5 s", "10 min", "1h", "ten", "'5'", '"5"', "[5]", "{a: 5}",
    "true", "yes", ".nan", ".inf", "-.inf", "1e999", "0x10", "12:30", "2026-01-15", "5 RUB", "~5", "a, b",
    "5;", "--5", "+-5", "<5",
)  # fmt: skip
NO_SWITCHES = (
    "1",
    "0",
    "enabled",
    "'true'",
    "[true]",
    "{a: true}",
    "y/n",
    "tru",
    "None",
    "2",
    "ja",
    "!",
    "''",
)
NO_LISTS = (
    "SBER",
    "SBER, GAZP",
    "'[SBER]'",
    "5",
    "true",
    "{SBER: 1}",
    "[SBER, SBER]",
    "[[SBER]]",
    "[SBER, ~]",
)


def some(of: list[Key], ways: Sequence[str], way: str) -> list[Key]:
    return of[ways.index(way) % 4 :: 4]


def load(tmp_path: Path, text: str) -> RunnerConfig:
    path = tmp_path / "live.yaml"
    path.write_text(text, encoding="utf-8")
    return config.load(path, decrypt=False)


def value_of(loaded: Any, name: str) -> Any:
    for part in name.split("."):
        loaded = getattr(loaded, part)
    return loaded


def refused(tmp_path: Path, key: Key, value: str) -> str:
    with pytest.raises(ConfigError) as caught:
        pytest.fail(f"{key.name}: {value} loaded as {value_of(load(tmp_path, key.text(value)), key.name)!r}")
    message = str(caught.value)
    assert key.name in message and "\n" not in message, (key.name, value, message)
    return message


def meant(key: Key, written: str) -> Any:
    """What the words of a number say, None if no number."""
    try:
        number = float(written.replace("_", ""))
    except ValueError:
        return None
    return number if key.kind is float else int(number) if number.is_integer() else None


# ---- the value


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_no_number_for_a_number_is_refused(tmp_path: Path, value: str) -> None:
    for key in some(NUMBERS, NO_NUMBERS, value):
        message = refused(tmp_path, key, value)
        assert f"line {key.line}" in message, (key.name, message)
        assert "number" in message or "one value" in message, (key.name, message)


@pytest.mark.parametrize("value", NO_SWITCHES)
def test_no_switch_for_a_switch_is_refused(tmp_path: Path, value: str) -> None:
    for key in some(OF[bool], NO_SWITCHES, value):
        message = refused(tmp_path, key, value)
        assert "true or false" in message or "one value" in message, (key.name, message)


@pytest.mark.parametrize("value", NO_LISTS)
def test_no_list_for_a_list_is_refused(tmp_path: Path, value: str) -> None:
    for key in LISTS:
        message = refused(tmp_path, key, value)
        assert "a list" in message or "one value" in message, (key.name, message)


@pytest.mark.parametrize("value", ["", "~", "null"])
def test_nothing_is_nothing_only_where_that_is_allowed(tmp_path: Path, value: str) -> None:
    for key in KEYS:
        if key.optional:
            assert value_of(load(tmp_path, key.text(value)), key.name) is None
        else:
            assert "allowed" in refused(tmp_path, key, value)


def test_a_number_beyond_a_bound_is_refused_and_the_bound_itself_is_not(tmp_path: Path) -> None:
    """``data.depth`` and the like have rules of their own beside their bounds."""
    for key in NUMBERS:
        step = 1 if key.kind is int else 1e-9
        for bound, beyond in (("low", -step), ("high", step), ("above", 0)):
            limit = key.allowed.get(bound)
            if limit is None:
                continue
            words = refused(tmp_path, key, repr(key.kind(limit) + key.kind(beyond)))
            assert f"{limit:,}".replace(",", "_") in words, (key.name, words)
            if bound != "above":
                try:
                    loaded = load(tmp_path, key.text(repr(key.kind(limit))))
                except ConfigError as error:  # another key must fit as well
                    assert "allowed:" not in str(error), (key.name, str(error))
                else:
                    assert value_of(loaded, key.name) == limit


def test_half_of_a_whole_number_is_refused(tmp_path: Path) -> None:
    for key in NUMBERS:
        if key.kind is int:
            assert "a whole number" in refused(tmp_path, key, "1.5")


def test_a_choice_that_is_none_names_the_choices(tmp_path: Path) -> None:
    chosen = [k for k in OF[str] if k.allowed.get("one_of")]
    assert chosen
    for key in chosen:
        for value in ("no_such_choice", key.allowed["one_of"][0].upper(), "[]", "5", "true"):
            message = refused(tmp_path, key, value)
            assert all(choice in message for choice in key.allowed["one_of"]) or "[" in value, message


def test_a_form_that_does_not_fit_shows_the_form(tmp_path: Path) -> None:
    formed = [k for k in OF[str] if k.allowed.get("pattern")]
    assert formed
    for key in formed:
        for value in ("25:99", "no such form", "10.00", "ftp:/x"):
            assert key.allowed["pattern"][0] in refused(tmp_path, key, value)


@settings(max_examples=100)
@given(st.sampled_from(NUMBERS), st.from_regex(r"-?[0-9_]{0,6}[.,:eE%]?[+-]?[0-9]{0,4}", fullmatch=True))
def test_whatever_is_written_for_a_number_loads_as_what_it_says_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, key: Key, written: str
) -> None:
    tmp_path = tmp_path_factory.getbasetemp()
    try:
        loaded = load(tmp_path, key.text(written))
    except ConfigError as error:
        # Of a mark that means something to YAML the line is told, and the column.
        assert key.name.partition(".")[0] in str(error) or f"line {key.line}, column" in str(error)
    else:
        if written:
            assert math.isclose(value_of(loaded, key.name), meant(key, written))
            config.engine_config(loaded)


# ---- the key


def mistaken(name: str) -> dict[str, str]:
    """Names that people write instead of ``name``."""
    swapped = name[1] + name[0] + name[2:]
    return {
        "letter missing": name[:-1] or "x", "letter doubled": name + name[-1], "swapped": swapped,
        "hyphens": name.replace("_", "-"), "capitals": name.upper(), "camel": name.title().replace("_", ""),
        "space": name.replace("_", " "),
    }  # fmt: skip


def test_a_key_that_is_misspelt_is_refused_and_most_often_guessed(tmp_path: Path) -> None:
    guessed = told = 0
    for at, key in enumerate(KEYS):
        above, _, last = key.name.rpartition(".")
        known = {k.name for k in KEYS}
        for how, wrong in list(mistaken(last).items())[at % 4 :: 4]:
            if f"{above}.{wrong}" in known or wrong == last:
                continue
            odd = dataclasses.replace(key, name=f"{above}.{wrong}")
            with pytest.raises(ConfigError) as caught:
                load(tmp_path, odd.text("5"))
            message = str(caught.value)
            assert f"unknown key {above}.{wrong}" in message and last in message, (how, message)
            told += 1
            guessed += f"did you mean {key.name}?" in message
    assert guessed > 0.6 * told, (guessed, told)


def test_a_key_in_the_wrong_place_is_refused_with_its_line(tmp_path: Path) -> None:
    for key in KEYS:
        last = key.name.rpartition(".")[2]
        if last in {f.name for f in dataclasses.fields(RunnerConfig)}:
            continue
        for text in (f"{last}: 5\n", f"backtest:\n  risk:\n    {last}: 5\n")[len(last) % 2 :]:
            with pytest.raises(ConfigError, match=r"line \d") as caught:
                load(tmp_path, text)
            assert "unknown" in str(caught.value)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    for key in KEYS:
        text = key.text("5")
        with pytest.raises(ConfigError, match="given twice") as caught:
            load(tmp_path, text + text.splitlines()[-1] + "\n")
        assert key.name in str(caught.value)


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda text: text.replace("  ", "\t"),
        lambda text: text.replace(":", "", 1),
        lambda text: text.rstrip() + " : : [\n",
        lambda text: "- " + text,
        lambda text: text.replace(": ", ":", 1).rstrip("\n") + "'\n",
    ],
)  # fmt: skip
def test_a_file_that_is_no_yaml_is_one_sentence_with_a_line(tmp_path: Path, spoilt: Any) -> None:
    for key in KEYS[::4]:
        with pytest.raises(ConfigError, match=r"line \d") as caught:
            load(tmp_path, spoilt(key.text("5")))
        assert "\n" not in str(caught.value)


def test_a_section_that_is_a_value_is_refused_with_its_keys(tmp_path: Path) -> None:
    for section in {key.name.partition(".")[0] for key in KEYS}:
        for value in ("5", "on", "[]", "'x: 1'"):
            with pytest.raises(ConfigError, match=f"{section} is a section with keys"):
                load(tmp_path, f"{section}: {value}\n")
