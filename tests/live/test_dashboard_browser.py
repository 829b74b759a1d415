"""The page in a real browser: content, live update, phone, sign-in, halt and resume, contrast."""

from __future__ import annotations

import json
import threading

import pytest
from board_state import HOLD, Board
from browser import chromium

from live.dashboard import make_server
from market.types import NANO

WORD = "a-long-word"
WAIT_MS = 30_000
PHONE, DESK = {"width": 380, "height": 800}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path)


@pytest.fixture
def serve(board):
    servers = []

    def start(token=WORD):
        server = make_server(board.config(token), interval_s=0.1)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def visit(browser, serve):
    """Opens the page, signed in where a token is asked for; complaints of the browser fail the test."""
    contexts, complaints = [], []

    def open_page(size=DESK, scheme="light", token=WORD, sign_in=True):
        server = serve(token)
        context = browser.new_context(viewport=size, color_scheme=scheme)
        context.set_default_timeout(WAIT_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if "Security Policy" in m.text else None)
        page.goto(server.url)
        if token and sign_in:
            page.fill("#token", token)
            page.click("button[type=submit]")
        if sign_in:
            page.wait_for_selector("#tiles div")
        page.server = server
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def says(page, selector, text):
    """Waits until the element's text holds ``text``."""
    page.wait_for_function(
        "([s, t]) => document.querySelector(s)?.textContent.includes(t)", arg=[selector, text]
    )


def test_one_look_tells_whether_all_is_well(visit):
    page = visit()
    assert page.inner_text("#headline") == "All is well"
    assert page.get_attribute("#verdict", "data-level") == "ok"
    assert page.title().startswith("✓ All is well")
    assert page.inner_text("#mark") == "SIMULATED: a simulated market"
    size = page.evaluate("parseFloat(getComputedStyle(document.querySelector('#verdict h1')).fontSize)")
    top = page.evaluate("document.querySelector('#verdict h1').getBoundingClientRect().top")
    assert size >= 24
    assert top < 100


def test_positions_orders_book_signals_and_health_are_there(visit):
    page = visit()
    assert "299.70" in page.inner_text("#positions")  # the stop, in roubles
    assert "2 of 3" in page.inner_text("#working")
    assert page.locator("#book tr.mine").inner_text().split() == ["ours:", "2", "300.04", "92"]
    assert "our stop: 299.70" in page.inner_text("#book")
    assert "expects 5.2 bps, costs 2.1" in page.inner_text("#signals")
    assert "ofi_l1_5s (+4.2 σ)" in page.inner_text("#signals")
    assert page.locator("#signals .vote i.up").count() == page.locator("#signals .vote i.down").count() == 1
    assert page.inner_text("#latency td.bad") == "61 ms"  # over its limit
    assert "+5.00" not in page.inner_text("#tiles")
    assert "-4.99" in page.inner_text("#tiles")  # the drawdown
    assert page.locator("#curve svg path.net").get_attribute("d").count("L") > 200
    page.click("#pick button:has-text('GAZP')")
    assert "170.00" in page.inner_text("#book")


def test_lists_are_chosen_and_their_text_is_never_markup(visit):
    page = visit()
    page.click("#tabs button:has-text('audit')")
    assert "reason=<b>STOP</b> & more" in page.inner_text("#table")
    assert page.locator("#table b").count() == 0
    assert page.get_attribute("#tabs button:has-text('audit')", "aria-pressed") == "true"


def test_it_changes_by_itself_without_a_reload(board, visit):
    page = visit()
    page.evaluate("window.stayed = true")
    board.tell(holds=[HOLD], net_nano=-321 * NANO)
    says(page, "#headline", "Not trading: the market is too volatile")
    says(page, "#why", "volatility index 41 is above 40. Until a person resumes.")
    says(page, "#holds", "VOLATILITY")
    says(page, "#tiles", "-321.00")
    assert page.get_attribute("#verdict", "data-level") == "bad"
    assert page.get_attribute("#headline", "aria-live") == "assertive"
    board.tell()
    says(page, "#headline", "All is well")
    assert page.evaluate("window.stayed") is True


def test_a_dead_runner_and_a_dead_page_both_say_so(board, visit):
    page = visit()
    board.tell(wall_ns=1)
    says(page, "#headline", "The runner is NOT RUNNING")
    says(page, "#why", "+3 lots of SBER")
    page.server.close()
    says(page, "#headline", "No news from the trading box")
    assert page.get_attribute("body", "data-stale") == ""


def test_a_phone_needs_no_sideways_scrolling(board, visit):
    long = {**HOLD, "name": "POSITION_MISMATCH", "severity": "NO_ORDERS", "reason": "x" * 300}
    board.tell(holds=[long, {**HOLD, "until_ns": HOLD["since_ns"] + 10**12}])
    page = visit(PHONE, "dark")
    for name in ("orders", "fills", "audit", "sessions"):
        page.click(f"#tabs button:has-text('{name}')")
        wide = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]")
        assert wide == [380, 380], name
    targets = page.evaluate("[...document.querySelectorAll('#bar button')].map(b => b.offsetHeight)")
    assert min(targets) >= 40  # a thumb hits it
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(json.loads(background.replace("rgb(", "[").replace(")", "]"))) < 150  # dark


CONTRAST = """() => {
  const probe = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = text => { probe.clearRect(0, 0, 1, 1); probe.fillStyle = text; probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data]; };
  const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b; };
  const worst = [];
  for (const node of document.querySelectorAll("body *")) {
    const text = [...node.childNodes].some(c => c.nodeType === 3 && c.textContent.trim());
    if (!text || !node.checkVisibility() || node.disabled || node.closest("dialog:not([open])")) continue;
    let back = node; while (back && rgba(getComputedStyle(back).backgroundColor)[3] < 255) back = back.parentElement;
    const a = light(rgba(getComputedStyle(node).color)), b = light(rgba(getComputedStyle(back ?? document.body).backgroundColor));
    worst.push([(Math.max(a, b) + .05) / (Math.min(a, b) + .05), node.textContent.slice(0, 40)]);
  }
  return worst.sort((x, y) => x[0] - y[0]).slice(0, 3);
}"""  # noqa: E501


def test_every_text_can_be_read_in_the_light_and_in_the_dark(board, visit):
    page = visit()
    for state, changes in {
        "ok": {}, "bad": {"holds": [HOLD], "net_nano": -NANO},
        "idle": {"holds": [{**HOLD, "name": "SESSION"}]},
        "watch": {"storage": {"degraded": "disk full", "lost": 1}},
    }.items():  # fmt: skip
        board.tell(**changes)
        page.wait_for_selector(f"#verdict[data-level={state}]")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            worst = page.evaluate(CONTRAST)
            assert worst[0][0] >= 4.5, (state, scheme, worst)


def test_without_the_token_nothing_is_shown(visit):
    page = visit(sign_in=False)
    assert "SBER" not in page.content()
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#wrong:visible")
    assert page.inner_text("#wrong") == "That is not the token."
    assert "wrong" not in page.url
    page.fill("#token", WORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("#tiles div")
    assert WORD not in page.url
    assert WORD not in str(page.context.cookies())
    assert page.evaluate("document.cookie") == ""
    page.click("text=Sign out")
    page.wait_for_selector("#token")


def test_without_a_configured_token_the_page_only_shows(visit):
    page = visit(token="")
    assert page.is_disabled("#halt")
    assert page.is_disabled("#resume")
    assert "dashboard.token" in page.get_attribute("#halt", "title")


def test_halt_and_resume_ask_first_and_then_do_it(board, visit):
    page = visit(PHONE)
    page.click("#halt")
    assert page.is_visible("#ask-halt")
    page.click("#ask-halt button:has-text('Cancel')")
    page.click("#halt")
    page.keyboard.press("Escape")
    assert not board.flag.exists()
    page.click("#halt")
    page.fill("#halt-why", "news at 14:00")
    page.click("#ask-halt button:has-text('Halt now')")
    says(page, "#said", "Halted: news at 14:00")
    says(page, "#headline", "Being halted by hand")
    assert board.flag.read_text().strip() == "news at 14:00 (dashboard, 127.0.0.1)"
    assert page.is_disabled("#halt")
    held = {**HOLD, "name": "MANUAL_OVERRIDE", "severity": "NO_ORDERS", "reason": "news at 14:00"}
    board.tell(holds=[held, HOLD])
    says(page, "#headline", "Halted by hand, and +3 lots of SBER cannot be closed from here")
    says(page, "#hold-list", "VOLATILITY")
    page.click("#resume")
    assert page.locator("#lifts li").all_inner_texts() == [
        "the halt: news at 14:00 (dashboard, 127.0.0.1)", "VOLATILITY: volatility index 41 is above 40"
    ]  # fmt: skip
    page.click("#ask-resume button:has-text('Resume')")
    assert page.is_visible("#ask-resume")  # the box must be ticked
    page.check("#looked")
    page.click("#ask-resume button:has-text('Resume')")
    says(page, "#said", "the halt is removed; the runner is asked to lift VOLATILITY")
    assert not board.flag.exists()
    assert json.loads((board.runtime / "resume.request").read_text())["names"] == ["VOLATILITY"]


def test_the_keyboard_is_enough(board, visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "halt"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    page.wait_for_selector("#ask-halt[open]")
    page.keyboard.press("Tab")  # from Cancel or the field to the next; the dialog keeps the focus
    assert page.evaluate("document.activeElement.closest('dialog')?.id") == "ask-halt"
    page.focus("#halt-why")
    page.keyboard.type("by keyboard")
    page.keyboard.press("Enter")
    says(page, "#said", "Halted: by keyboard")
    assert board.flag.exists()
