"""Commands from a chat, through a Bot API server over real HTTP."""

from __future__ import annotations

import re
import time

import pytest
from board_state import HOLD, Board
from fake_bot import TOKEN, FakeBot

from live.config_schema import Notifications
from live.control import Control
from live.notify import Notifier
from live.notify.commands import MAX_WRONG_CODES, CommandListener
from live.notify.telegram import TelegramApi


@pytest.fixture
def bot():
    found = FakeBot()
    yield found
    found.close()


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path)


class Chat:
    """A listener for chat 42, and what the audit heard."""

    def __init__(self, bot: FakeBot, board: Board) -> None:
        settings = Notifications(token=TOKEN, chat_id="42", api_url=bot.url)
        self.bot, self.audited, self._told = bot, [], 0
        self.notifier = Notifier(settings, pace=0.01)
        self.listener = CommandListener(
            TelegramApi(TOKEN, bot.url), self.notifier, Control(board.flag, board.runtime), {"42"},
            lambda tag, event, fields: self.audited.append((tag, event, fields)), poll_s=1,
        )  # fmt: skip
        self.listener.start()

    def ask(self, text: str) -> str:
        self.bot.say(text)
        self._told += 1
        return self.bot.wait(self._told)[-1]

    def close(self) -> None:
        self.listener.close()
        self.notifier.close()


@pytest.fixture
def chat(bot, board):
    one = Chat(bot, board)
    yield one
    one.close()


def test_status_and_pnl(chat, board):
    text = chat.ask("/status")
    assert text.splitlines()[0] == "All is well"
    assert "SBER +3; net +12.00 RUB" in text
    board.tell(holds=[HOLD])
    text = chat.ask("/status@scalper_bot")
    assert text.splitlines()[0] == "Not trading: the market is too volatile"
    assert "VOLATILITY: volatility index 41 is above 40; until a person resumes" in text
    text = chat.ask("/pnl")
    assert "net +12.00 RUB (gross +15.00, fees 3.00)" in text
    assert "realised today +12.00, the day's limit is -2000.00" in text
    assert text.endswith("SIMULATED: not evidence of an edge")
    assert "/halt REASON" in chat.ask("/help")


def test_no_runner_is_an_answer_too(chat, board):
    (board.runtime / "status.json").unlink()
    assert "no runner has worked in" in chat.ask("/status")


def test_halt_and_resume_with_a_code(chat, board):
    answer = chat.ask("/halt news at 14:00")
    assert answer.startswith("HALTED: news at 14:00 (Telegram 42)")
    assert board.flag.read_text().strip() == "news at 14:00 (Telegram 42)"
    assert "already halted" in chat.ask("/halt again")
    board.tell(holds=[HOLD])
    question = chat.ask("/resume")
    assert "the halt “news at 14:00 (Telegram 42)”, VOLATILITY" in question
    assert board.flag.exists()  # asking does nothing
    code = re.search(r"/resume (\d{4})", question)[1]
    assert chat.ask(f"/resume {code}") == "the halt is removed; the runner is asked to lift VOLATILITY."
    assert not board.flag.exists()
    assert [event for _, event, _ in chat.audited] == ["TELEGRAM_HALT", "TELEGRAM_RESUME"]
    assert "No resume waits" in chat.ask(f"/resume {code}")  # a code works once


def test_wrong_codes_and_a_halt_that_came_since(chat, board):
    board.flag.write_text("first\n")
    question = chat.ask("/resume")
    code = re.search(r"/resume (\d{4})", question)[1]
    wrong = "0000"
    for _ in range(MAX_WRONG_CODES):
        answer = chat.ask(f"/resume {wrong}")
    assert "Three wrong codes" in answer
    assert "No resume waits" in chat.ask(f"/resume {code}")
    code = re.search(r"/resume (\d{4})", chat.ask("/resume"))[1]
    board.flag.write_text("somebody else halted meanwhile\n")
    assert "that changed in the meantime" in chat.ask(f"/resume {code}")
    assert board.flag.exists()


def test_a_stranger_gets_no_answer_and_the_audit_hears_of_it_once(chat, bot, board):
    for text in ("/halt everything", "/status", "/resume"):
        bot.say(text, chat=666)
    chat.ask("/pnl")  # handled after them
    assert len(bot.messages) == 1
    assert not board.flag.exists()
    assert chat.audited == [("RISK", "TELEGRAM_REFUSED", {"chat_id": "666", "command": "/halt"})]
    assert chat.listener.refused == 3


def test_what_was_said_while_nobody_listened_is_thrown_away(bot, board):
    board.flag.write_text("stay\n")
    bot.say("/halt old", age_s=3_600)
    bot.say("/resume", age_s=3_600)
    one = Chat(bot, board)
    assert one.ask("/status").splitlines()[0] == "Being halted by hand"
    assert len(bot.messages) == 1
    one.close()


def test_talk_and_odd_updates_are_ignored(chat, bot):
    bot.say("how are you?")
    with bot.changed:
        bot.updates += [{"update_id": 900, "edited_message": {}}, {"update_id": 901, "message": {"text": 3}},
                        {"update_id": 902, "message": None}]  # fmt: skip
        bot._next = 1000
    assert chat.ask("/status").startswith("All is well")


def test_a_server_that_goes_away_is_an_error_that_hides_the_token(chat, bot):
    chat.ask("/status")
    bot.close()
    deadline = time.monotonic() + 30
    while not chat.listener.last_error:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert TOKEN.split(":")[1] not in chat.listener.last_error
    assert len(bot.messages) == 1
