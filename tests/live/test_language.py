"""`system.language: ru`: nothing that people are told stays in English, and nothing is lost."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_bot import TOKEN, FakeBot
from hypothesis import given
from hypothesis import strategies as st

from live.config_schema import Notifications, RunnerConfig
from live.core.holds import KINDS
from live.notify import Notifier
from live.notify.language import LANGUAGES, Catalogue, translator
from live.notify.russian import PHRASES
from live.verdict import WORDS

LIVE = Path(__file__).resolve().parents[2] / "live"
TOLD_BY = {
    "hold",
    "lift",
    "lift_everywhere",
    "notify",
    "send",
    "_tell",
    "_failed",
    "halt",
    "HoldKind",
    "StreamDown",
}
"""Calls whose words reach people."""
NAMED = {"words", "why", "again", "error", "text", "last_error"}
"""Variables that carry words to such a call."""
CORE = ("gates", "desk", "reconcile", "engine", "portfolio", "trader", "holds")
SHELL = (
    "beside", "capacity", "connectivity", "executor", "gpu", "reload", "runner", "session", "standing",
    "tasks", "broker/link", "broker/stream", "broker/watchdog",
)  # fmt: skip
WHOLE = ("verdict", "control", "notify/commands")
"""Files whose every sentence is for people."""
SAMPLES = {"verb": "bought", "session": "primary"}
KEPT = {"live", "runner", "model", "prod", "resume", "status", "pnl", "halt", "cpu", "mode", "uid"}
"""Words that a translation keeps: commands, names of settings."""
CODE_ONLY = re.compile(r"[\W\d_A-Z]*|[a-z_ .]*[_.=][a-z_.=]*")
NOT_SAID = {
    "message", "chat", "text", "getUpdates", "update_id", "allowed_updates", "telegram-commands", "utf-8",
    "replace", "Telegram 7",
}  # fmt: skip
ru = translator("ru")


def template(node: ast.expr) -> str | None:
    """The sentence with samples in its holes; None: not one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return None
    parts = []
    for value in node.values:
        if isinstance(value, ast.Constant):
            parts.append(str(value.value))
        else:
            assert isinstance(value, ast.FormattedValue)
            parts.append(SAMPLES.get(ast.unparse(value.value), "7"))
    return "".join(parts)


def strings(node: ast.AST) -> Iterator[str]:
    """Every sentence under ``node``, not the pieces of f-strings."""
    stack = [node]
    while stack:
        one = stack.pop()
        if isinstance(one, ast.expr) and (found := template(one)) is not None:
            yield found
        elif isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant):
            pass  # a docstring
        elif isinstance(one, ast.Call) and ast.unparse(one.func).endswith(("audit", "getattr", "_audit")):
            pass  # the audit stays English
        else:
            stack += list(ast.iter_child_nodes(one))


def told(path: Path, whole: bool) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    if whole:
        yield from strings(tree)
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in TOLD_BY:
                for part in [*node.args, *(k.value for k in node.keywords)]:
                    yield from strings(part)
        elif isinstance(node, ast.Assign) and any(
            ast.unparse(t).split(".")[-1] in NAMED for t in node.targets
        ):
            yield from strings(node.value)


def sentences() -> list[tuple[str, str]]:
    files = [(LIVE / "core" / f"{name}.py", False) for name in CORE]
    files += [(LIVE / f"{name}.py", False) for name in SHELL] + [
        (LIVE / f"{name}.py", True) for name in WHOLE
    ]
    found = {
        (path.stem, text.strip(" ,"))
        for path, whole in files
        for text in told(path, whole)
        if re.search(r"[a-z]{3}", text) and " " in text.strip() and text.strip() not in NOT_SAID
    }
    return sorted(found)


def english_left(text: str) -> list[str]:
    return [w for w in re.findall(r"(?<![\w/`.-])[a-z]{3,}(?![\w/`.])", text) if w not in KEPT]


@pytest.mark.parametrize(("where", "text"), sentences())
def test_every_sentence_that_is_told_has_a_russian_one(where, text):
    said = ru(text)
    assert re.search("[а-я]", said), f"{where}.py says {text!r}; live/notify/russian.py lacks it"
    assert not english_left(said), f"{where}.py says {text!r}, which becomes {said!r}"


def test_the_sources_were_really_read():
    found = sentences()
    assert len(found) > 120 and {where for where, _ in found} >= {"gates", "desk", "verdict", "commands"}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_hold_is_russian_from_its_notice_to_its_verdict(name):
    kind, (_, headline, todo) = KINDS[name], WORDS[name]
    notice = ru(f"{kind.raised_event} SIMP: no reason given; until {kind.lifts_when}")
    assert notice.startswith(f"{kind.raised_event} SIMP: причина не указана; до: ")
    for text in (notice.partition(":")[2], ru(headline), ru(todo), ru(f"Not trading: {headline.lower()}")):
        assert not english_left(text), text


@pytest.mark.parametrize(
    ("english", "russian"),
    [
        ("FILL SIMP: bought 3 at 30012 ticks (SIGNAL ensemble)",
         "FILL SIMP: куплено 3 по 30012 тиков (сигнал ансамбля)"),
        ("VOLATILITY_EMERGENCY: volatility index 41.5 is above 40; until a person resumes",
         "VOLATILITY_EMERGENCY: индекс волатильности 41.5 выше 40; до: возобновит человек"),
        ("DAILY_LOSS_STOP: the day's result is -2000.50 RUB, the limit is -2000.00 RUB; "
         "until exchange midnight",
         "DAILY_LOSS_STOP: результат дня -2000.50 ₽, предел -2000.00 ₽; до: полночь по биржевому времени"),
        ("LATENCY_VIOLATION: ml took 60000 us, limit 50000 us (7 more times in 60 s)",
         "LATENCY_VIOLATION: этап ml занял 60000 мкс, предел 50000 мкс (ещё 7 раз за 60 с)"),
        ("LEDGER_MISMATCH: 2026-01-15: 2 differences: the broker has deal D7: sold 3 at 30012 ticks SBER, "
         "our books do not (and 1 more); until the next comparison of a day agrees, or a person resumes",
         "LEDGER_MISMATCH: 2026-01-15: расхождений 2: у брокера есть сделка D7: продано 3 по 30012 тиков "
         "SBER, у нас нет (и ещё 1); до: следующая сверка дня сойдётся или возобновит человек"),
        ("GPU_FAILOVER mode=cpu: the delegate died",
         "GPU_FAILOVER mode=cpu: модель считается на процессоре: the delegate died"),
        ("HEARTBEAT_MISSED: no book for 3 intervals in a row; last connection error: UNAVAILABLE: reset, no; "
         "until a book arrives",
         "HEARTBEAT_MISSED: нет стакана 3 интервалов подряд; последняя ошибка связи: UNAVAILABLE: reset, no; "
         "до: придёт стакан"),
        # In a hole, and beginning like an event.
        ("HEARTBEAT_MISSED: no book for 3 intervals in a row; last connection error: market stream: SIMP is "
         "mute: no book for 3.4 s while the broker's book moved; until a book arrives",
         "HEARTBEAT_MISSED: нет стакана 3 интервалов подряд; последняя ошибка связи: поток market: SIMP "
         "молчит: нет стакана 3.4 с, а у брокера он менялся; до: придёт стакан"),
    ],
)  # fmt: skip
def test_numbers_reasons_and_names_are_in_their_places(english, russian):
    assert ru(english) == russian


def test_in_english_nothing_changes():
    assert translator("en")("FILL SIMP: bought 3 at 30012 ticks (SIGNAL)") == (
        "FILL SIMP: bought 3 at 30012 ticks (SIGNAL)"
    )
    assert set(LANGUAGES) == {"en", "ru"} and RunnerConfig().system.language == "en"


@given(st.text(max_size=300))
def test_what_the_catalogue_does_not_know_arrives_as_it_is(text):
    """A broker's own words: whatever they are, they get through, line by line."""
    said = ru(f"HALTED: {text}")
    assert said.startswith("HALTED: ") and len(said.split("\n")) == len(text.split("\n"))
    assert bool(said[8:].strip()) == bool(text.strip())


def test_each_template_uses_the_holes_of_its_pattern():
    holes = re.compile(r"{(\w+)[^}]*}")
    for english, russian in PHRASES.items():
        assert set(holes.findall(russian)) <= set(holes.findall(english)), english
        assert re.search("[а-яё]", russian) or "{" in russian, russian


def test_a_pattern_is_found_again_in_what_it_would_say():
    catalogue = Catalogue(PHRASES)
    worded = [key for key in PHRASES if re.search("[A-Za-z]{2}", re.sub(r"{\w+}", "", key))]
    assert [key for key in worded if not catalogue.knows(re.sub(r"{\w+}", "7", key))] == []


def test_the_chat_speaks_russian():
    bot = FakeBot()
    try:
        settings = Notifications(token=TOKEN, chat_id="42", api_url=bot.url, dedupe_seconds=0.0)
        one = Notifier(settings, prefix="[paper] ", pace=0.01, language="ru")
        one.send("CONNECTION_LOST: no reason given; until the channel is up", 2500)
        one.send("CONNECTION_RESTORED: channel primary is up")
        texts = "\n".join(bot.wait(2))
        one.close()
    finally:
        bot.close()
    assert "‼ [paper] CONNECTION_LOST: причина не указана; до: канал заработает" in texts
    assert "[paper] CONNECTION_RESTORED: канал primary работает" in texts
