"""Notices reach a Bot API server over real HTTP, whatever it does, and never hold anybody up."""

from __future__ import annotations

import io
import os
import re
import time
import wave
from collections import deque
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from fake_bot import TOKEN, FakeBot
from hypothesis import given
from hypothesis import strategies as st

from live.config_schema import Notifications
from live.notify import Notice, Notifier, Severity
from live.notify.dedupe import Dedupe
from live.notify.notice import ALERTS, EXPECTED, WARNINGS, severity_of
from live.notify.quiet import QuietHours
from live.notify.sender import MAX_PER_MINUTE, MAX_WAITING, MIN_INTERVAL_S, TIMEOUT_S
from live.notify.telegram import TelegramApi, TelegramError
from live.notify.waiting import Waiting
from live.sounds import GIVE_UP_AFTER, RATE_HZ, Tones, tone

FAST = 0.01
"""Pauses of a test: a hundredth of the real ones."""
SLOWLY = 0.2


@pytest.fixture
def bot():
    found = FakeBot()
    yield found
    found.close()


@pytest.fixture
def notifier(bot):
    made = []

    def make(pace=FAST, quiet=None, **settings):
        fields = {"token": TOKEN, "chat_id": "42", "api_url": bot.url, "dedupe_seconds": 0.0, **settings}
        made.append(Notifier(Notifications(**fields), prefix="[paper] ", pace=pace, quiet=quiet))
        return made[-1]

    yield make
    for one in made:
        one.close(0.1)


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---- sending


def test_a_notice_arrives_with_its_mode_and_an_alert_is_marked(bot, notifier):
    one = notifier()
    one.send("FILL SBER: bought 2 at 30012 ticks")
    assert bot.wait(1) == ["[paper] FILL SBER: bought 2 at 30012 ticks"]
    one.send("CONNECTION_LOST: reset by peer", 2500)
    assert bot.wait(2)[1] == "‼ [paper] CONNECTION_LOST: reset by peer"
    assert bot.messages[0]["chat_id"] == "42"
    until(lambda: one.report()["sent"] == 2)
    assert one.report() == {
        "enabled": True, "sent": 2, "waiting": 0, "dropped": 0, "last_error": "", "sound": None
    }  # fmt: skip


def test_nothing_is_started_without_a_token():
    one = Notifier(Notifications())
    one.send("FILL")
    assert one.report()["enabled"] is False
    one.close()


def test_a_burst_is_joined_and_the_worst_goes_first(bot, notifier):
    one = notifier(pace=SLOWLY)
    bot.stall.set()
    one.send("first")
    bot.wait_arrived(1)  # it is on its way
    for n in range(10):
        one.send(f"FILL number {n}")
    one.send("CONNECTION_LOST: gone", 2500)
    bot.stall.clear()
    texts = bot.wait(3)
    assert texts[0] == "[paper] first"
    assert "CONNECTION_LOST" in texts[1]
    assert texts[2].splitlines() == [f"[paper] FILL number {n}" for n in range(10)]


class Stamps(deque):
    """When each call left, all of them; when they arrive is the machine's affair."""

    def __init__(self):
        super().__init__(maxlen=MAX_PER_MINUTE)
        self.all = []

    def append(self, at_s):
        super().append(at_s)
        self.all.append(at_s)


def test_calls_keep_their_distance(bot, notifier):
    one = notifier(pace=SLOWLY)
    one._calls = stamps = Stamps()
    for n in range(4):
        one.send(f"{'x' * 3900} {n}")  # too long to be joined
    bot.wait(4)
    assert min(np.diff(stamps.all)) >= MIN_INTERVAL_S * SLOWLY * 0.99


def test_no_more_than_twenty_calls_a_minute(bot, notifier):
    one = notifier()
    one._calls = stamps = Stamps()
    for n in range(22):
        one.send(f"{'x' * 3900} {n}")
    bot.wait(22)
    times = stamps.all
    assert all(later - first >= 60.0 * FAST * 0.99 for first, later in zip(times, times[20:], strict=False))


def test_a_dead_telegram_blocks_nobody_and_the_queue_is_bounded(bot, notifier):
    one = notifier()
    bot.stall.set()
    one.send("stuck")
    bot.wait_arrived(1)
    started = time.monotonic()
    for n in range(5 * MAX_WAITING):
        one.send(f"FILL {n}")
    one.send("CONNECTION_LOST: gone", 2500)
    assert bot.messages == []  # nobody waited for it
    assert time.monotonic() - started < TIMEOUT_S
    assert one.report()["waiting"] == MAX_WAITING
    assert one.report()["dropped"] >= 4 * MAX_WAITING
    bot.stall.clear()
    texts = bot.wait(2)
    assert "CONNECTION_LOST" in texts[1]  # the oldest and least severe were lost, not this one


def test_a_server_error_is_tried_again(bot, notifier):
    bot.answers.extend([(500, {}), (502, {}), (500, {"ok": False})])
    notifier().send("FILL once")
    assert bot.wait(1) == ["[paper] FILL once"]
    assert len(bot.calls) == 4


def test_retry_after_is_honoured(bot, notifier):
    wish_s = 3
    body = {"ok": False, "error_code": 429, "description": "Too Many", "parameters": {"retry_after": wish_s}}
    bot.answers.append((429, body))
    notifier(pace=SLOWLY).send("FILL once")
    bot.wait(1)
    assert bot.times[1] - bot.times[0] >= wish_s * SLOWLY


def test_what_cannot_succeed_is_given_up_and_the_next_goes_through(bot, notifier):
    bot.answers.append((403, {"ok": False, "description": "Forbidden: bot was blocked by the user"}))
    one = notifier()
    one.send("FILL lost")
    bot.wait_calls(1)
    until(lambda: one.report()["dropped"] == 1)
    assert "bot was blocked" in one.last_error
    assert "has not started the bot" in one.last_error
    one.send("FILL through")
    assert bot.wait(1) == ["[paper] FILL through"]
    until(lambda: one.last_error == "")


def test_less_than_the_least_severity_is_not_sent(bot, notifier):
    one = notifier(min_severity="warning")
    one.send("FILL SBER: bought 2")
    one.send("LIQUIDITY SBER: wide", 1500)
    assert "LIQUIDITY" in bot.wait(1)[0]


def test_close_gives_what_waits_a_moment(bot, notifier):
    one = notifier(pace=1.0)
    one.send("FILL a")
    one.send("HALTED: b")
    one.close(10.0)
    assert len(bot.messages) == 2


# ---- the token stays where it is


@pytest.mark.parametrize(
    "wrong",
    [
        lambda bot: TelegramApi(TOKEN, "http://127.0.0.1:1"),  # nobody listens
        lambda bot: TelegramApi(TOKEN + "x", bot.url),  # refused
        lambda bot: TelegramApi(TOKEN, bot.url + "/" + TOKEN),  # not a Bot API
        lambda bot: TelegramApi(TOKEN + "\x01x", bot.url),  # not an address
    ],
)
def test_no_failure_shows_the_token(bot, wrong):
    api = wrong(bot)
    with pytest.raises(TelegramError) as caught:
        api.call("sendMessage", {"chat_id": "1", "text": "x"}, 2.0)
    chain = [caught.value, caught.value.__cause__]
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    text = " ".join(map(repr, chain)) + str(caught.value) + repr(api)
    assert "secret" not in text


def test_the_server_itself_may_quote_the_token(bot):
    bot.answers.append((400, {"ok": False, "description": f"no such bot{TOKEN}, nor {TOKEN.split(':')[1]}"}))
    with pytest.raises(TelegramError, match=r"no such bot\*\*\*, nor \*\*\*") as caught:
        TelegramApi(TOKEN, bot.url).call("sendMessage", {}, 2.0)
    assert caught.value.permanent


def test_a_redirect_is_not_followed(bot):
    bot.answers.append((302, {}))
    with pytest.raises(TelegramError, match="302") as caught:
        TelegramApi(TOKEN, bot.url).call("sendMessage", {}, 2.0)
    assert caught.value.permanent
    assert bot.calls == ["sendMessage"]


# ---- the same again


def test_repeats_are_told_once_and_then_counted(bot, notifier):
    one = notifier(pace=FAST, dedupe_seconds=60.0)  # 0.6 s here
    for n in range(20):
        one.send(f"LATENCY_VIOLATION: ml took {50_000 + n} us")

    def told() -> int:
        counts = [re.search(r"\((\d+) more times? in 0.6 s\)$", line) for line in lines()]
        return sum(int(found[1]) if found else 1 for found in counts)

    def lines() -> list[str]:
        return "\n".join(bot.wait(1)).splitlines()

    until(lambda: told() == 20)
    assert lines()[0].endswith("took 50000 us") and "took 50019 us (" in lines()[-1]
    assert len(lines()) < 10  # two, where the machine does not stop in between


def test_two_fills_that_read_the_same_are_two_fills(bot, notifier):
    one = notifier(dedupe_seconds=60.0)
    one.send("FILL SBER: bought 2 at 30012 ticks")
    one.send("FILL SBER: bought 2 at 30012 ticks")
    until(lambda: "\n".join(bot.wait(1)).count("bought") == 2)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), max_size=60))
def test_dedupe_tells_every_kind_and_loses_no_count(events):
    """Whatever comes when: told + counted = given, and the last told of a kind is the last given."""
    dedupe, now, told, last, given_of = Dedupe(60.0), 0.0, {}, {}, {}

    def tell(notice):
        more = int(notice.text.split("(")[1].split()[0]) if "(" in notice.text else 1
        told[notice.kind] = told.get(notice.kind, 0) + more
        last[notice.kind] = notice.text.split("#")[1].split(" ")[0]

    for n, (kind, step) in enumerate(events):
        now += step
        for late in dedupe.due(now):
            tell(late)
        given_of[kind] = n
        notice = Notice(f"{kind} #{n} x", kind=kind)
        if dedupe.admit(notice, now):
            tell(notice)
    for late in dedupe.due(now, everything=True):
        tell(late)
    assert told == {k: sum(1 for e in events if e[0] == k) for k in given_of}
    assert last == {k: str(n) for k, n in given_of.items()}


@given(st.lists(st.sampled_from(list(Severity)), max_size=80), st.integers(1, 20))
def test_a_full_room_keeps_the_worst_and_the_newest(severities, limit):
    room = Waiting(limit)
    for n, severity in enumerate(severities):
        room.put(Notice(str(n), severity, chat_id="1"))
    kept = []
    while batch := room.take(10_000):
        kept += batch
    wanted = sorted(enumerate(severities), key=lambda p: (p[1], p[0]), reverse=True)[:limit]
    assert {int(n.text) for n in kept} == {n for n, _ in wanted}
    assert room.dropped == len(severities) - len(kept)
    assert [n.severity for n in kept] == sorted((n.severity for n in kept), reverse=True)


# ---- quiet hours and severity


def test_in_quiet_hours_info_waits_a_warning_is_silent_an_alert_is_not(bot, notifier):
    night = [True]
    one = notifier(quiet=lambda: night[0])
    one.send("FILL SBER: bought 2")
    one.send("LIQUIDITY SBER: wide", 1500)
    bot.wait(1)
    one.send("CONNECTION_LOST: gone", 2500)
    bot.wait(2)
    assert [(m["text"].split()[2], m["disable_notification"]) for m in bot.messages] == [
        ("LIQUIDITY", True), ("CONNECTION_LOST:", False)
    ]  # fmt: skip
    night[0] = False
    one.send("HALTED: morning")  # wakes the thread
    texts = bot.wait(4)
    assert "[paper] FILL SBER: bought 2" in texts


@pytest.mark.parametrize(
    ("span", "hour", "quiet"),
    [("23:00-07:00", 23, True), ("23:00-07:00", 6, True), ("23:00-07:00", 7, False),
     ("23:00-07:00", 22, False), ("12:00-13:00", 12, True), ("12:00-13:00", 13, False), ("", 3, False)],
)  # fmt: skip
def test_quiet_hours_in_the_time_of_the_exchange(span, hour, quiet):
    moment = datetime(2026, 1, 15, hour, 0, tzinfo=ZoneInfo("Europe/Moscow"))
    assert QuietHours(span, "Europe/Moscow").at(moment.astimezone(ZoneInfo("UTC"))) is quiet


@pytest.mark.parametrize(
    ("kind", "hz", "severity"),
    [
        ("FILL", None, Severity.INFO), ("LIQUIDITY", 1500, Severity.WARNING), ("STOP", 2500, Severity.ALERT),
        ("SESSION_SUSPENDED", 2500, Severity.INFO), ("BOOK_QUARANTINED", 2500, Severity.WARNING),
        ("DAILY_LOSS_STOP", 2500, Severity.ALERT), ("QUEUE_FULL", None, Severity.ALERT),
    ],
)  # fmt: skip
def test_severity_by_name_then_by_tone(kind, hz, severity):
    assert severity_of(kind, hz) is severity


def test_every_name_with_a_severity_is_told_by_somebody():
    """A renamed event must not fall back to another severity in silence."""
    package = Path(__file__).resolve().parents[2] / "live"
    source = "".join(f.read_text() for f in package.rglob("*.py") if f.name != "notice.py")
    missing = [n for n in EXPECTED | WARNINGS | ALERTS | {"FILL"} if not re.search(rf"[\"']{n}\b", source)]
    assert missing == []


# ---- tones


@pytest.mark.parametrize(("hz", "beeps"), [(1500, 1), (2500, 3)])
def test_a_tone_is_a_pure_sine_of_its_frequency(hz, beeps):
    with wave.open(io.BytesIO(tone(hz))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE_HZ)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE_HZ)
    assert abs(frequencies[spectrum.argmax()] - hz) < 5
    assert spectrum[np.abs(frequencies - hz) < 60].sum() > 0.99 * spectrum.sum()
    assert abs(samples[0]) < 100  # faded in: it does not click
    loud = np.abs(samples) > 1000
    assert np.count_nonzero(np.diff(np.flatnonzero(loud)) > RATE_HZ * 0.05) == beeps - 1


@pytest.fixture
def player(tmp_path, monkeypatch):
    """The only player on the path: a script that keeps what it is given, or fails."""

    def make(code: int):
        script = tmp_path / "aplay"
        script.write_text(
            f'#!/bin/sh\n[ {code} -eq 0 ] && /bin/cp "$2" "{tmp_path}/heard.wav"\nexit {code}\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        return tmp_path / "heard.wav"

    return make


def test_an_alert_sounds_and_a_normal_end_of_session_does_not(player):
    heard = player(0)
    one = Notifier(Notifications(sound=True), quiet=lambda: False)
    one.send("SESSION_SUSPENDED: the window is over", 2500)
    one.send("LIQUIDITY SBER: wide", 1500)
    until(heard.exists)
    until(lambda: one.report()["sound"]["played"] == 1)
    assert heard.read_bytes() == tone(1500)
    one.send("STOP SBER: beyond", 2500)
    until(lambda: one.report()["sound"]["played"] == 2)
    assert heard.read_bytes() == tone(2500)
    one.close()


def test_no_player_and_no_device_are_not_errors(player, monkeypatch, tmp_path):
    player(1)
    tones = Tones()
    for _ in range(GIVE_UP_AFTER):
        before = tones._failures
        tones.play(2500)
        until(lambda before=before: tones._failures > before)
    assert tones.report() == {"player": "aplay", "played": 0, "last_error": "aplay: 1"}
    tones.play(2500)
    tones.close()
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", os.fspath(tmp_path / "empty"))
    silent = Tones()
    silent.play(1500)
    silent.close()
    assert silent.report()["last_error"] == "no player on this machine"
