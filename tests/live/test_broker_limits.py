"""The rate budget: the broker's headers rule it, cancels keep their share, nothing ever goes above."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live.broker.limits import CANCELS, GROUPS, PER_MINUTE, SAFETY, Allowance, RateLimits, TokenBucket
from live.broker.transport import DEADLINES_S

POST, CANCEL, STATE = "OrdersService/PostOrder", "OrdersService/CancelOrder", "OrdersService/GetOrderState"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def headers(limit: int, left: int, reset: int, window: int = 60) -> dict[str, str]:
    return {
        "x-ratelimit-limit": f"{limit}, {limit};w={window}",
        "x-ratelimit-remaining": str(left),
        "x-ratelimit-reset": str(reset),
    }


def spend(limits: RateLimits, method: str, answer: dict[str, str] | None = None) -> None:
    limits.take(method)
    limits.done(method, answer or {})


def test_every_call_has_a_deadline_and_a_budget():
    assert set(GROUPS) == set(DEADLINES_S)
    assert set(GROUPS.values()) == set(PER_MINUTE)


def test_a_bucket_gives_no_more_than_its_rate_and_keeps_its_reserve():
    bucket = TokenBucket(4, 2, reserve=2, now=0.0)
    for _ in range(2):
        assert bucket.wait_s(now=0.0) == 0
        bucket.take(now=0.0)
    assert bucket.wait_s(now=0.0) == pytest.approx(0.5)
    assert bucket.wait_s(privileged=True, now=0.0) == 0
    taken, now = 0, 0.0
    while now < 60:
        if bucket.wait_s(now=now) == 0:
            bucket.take(now=now)
            taken += 1
        now += 0.05
    assert taken <= 2 * 60 + 4


def test_cancels_pass_when_orders_must_wait():
    clock = Clock()
    limits = RateLimits(clock_s=clock)
    while limits.wait_s(POST) == 0:
        limits.take(POST)
    assert limits.wait_s(CANCEL) == 0


def test_the_brokers_word_wins_over_the_table():
    clock = Clock()
    limits = RateLimits(clock_s=clock)
    spend(limits, POST, headers(300, 0, 30))
    assert limits.wait_s(POST) == pytest.approx(30)
    assert limits.wait_s(STATE) == 0  # another group
    clock.now += 31
    assert limits.wait_s(POST) == 0  # a new window has begun
    spend(limits, POST, headers(30, 29, 60))
    assert limits.report()["post_order"]["limit"] == 30
    taken = 1
    while limits.wait_s(POST) == 0:
        spend(limits, POST)
        taken += 1
    assert taken <= 30 * SAFETY / 6 + 1  # no burst above what the new limit earns in ten seconds
    spend(limits, POST, headers(600, 500, 50))
    clock.now += 10
    burst = 0
    while limits.wait_s(POST) == 0:
        spend(limits, POST)
        burst += 1
    assert burst > 20  # and a higher one is used, as far as all calls together may go


def test_the_end_of_a_window_is_left_to_cancels():
    clock = Clock()
    limits = RateLimits(clock_s=clock)
    spend(limits, STATE, headers(100, 10, 40))
    assert limits.wait_s(STATE) == pytest.approx(40)  # a tenth is not ours to spend on questions
    spend(limits, CANCEL, headers(100, 1, 40))
    assert limits.wait_s(CANCEL) == 0
    limits.take(CANCEL)
    assert limits.wait_s(CANCEL) > 0


def test_answers_that_overtake_each_other_do_not_give_requests_back():
    clock = Clock()
    limits = RateLimits(clock_s=clock)
    for _ in range(2):
        limits.take(POST)
    limits.done(POST, headers(300, 40, 30))
    limits.done(POST, headers(300, 41, 30))  # sent first, answered last
    assert limits.report()["post_order"]["left"] < 40


def test_a_refusal_closes_the_group_until_its_reset():
    clock = Clock()
    limits = RateLimits(clock_s=clock)
    limits.take(POST)
    limits.done(POST, {})
    limits.exhausted(POST, 12.0)
    assert limits.wait_s(POST) >= 12
    assert limits.wait_s(CANCEL) == 0
    assert limits.report()["post_order"]["refused"] == 1


@pytest.mark.parametrize("bad", ["", "x", "-1", "nan", "1e999", "0, 0;w=0", ";w=60"])
def test_nonsense_in_the_headers_changes_nothing(bad):
    clock = Clock()
    limits = RateLimits(clock_s=clock)
    spend(limits, POST, dict.fromkeys(headers(1, 1, 1), bad))
    assert limits.report()["post_order"]["limit"] == PER_MINUTE["post_order"]
    assert limits.wait_s(POST) == 0


def test_an_accelerated_exchange_allows_more_and_its_wall_clock_headers_bind_nobody():
    clock = Clock()
    limits = RateLimits(20.0, clock_s=clock)
    for _ in range(400):
        assert limits.wait_s(POST) == 0
        spend(limits, POST, headers(300, 0, 60))
    limits.exhausted(POST, 3.0)
    assert limits.wait_s(POST) >= 3  # a refusal binds always


@given(
    limit=st.integers(60, 400),
    delays=st.lists(st.floats(0.0, 1.0), min_size=5, max_size=40),
    gaps=st.lists(st.floats(0.0, 0.4), min_size=5, max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_a_client_that_believes_the_headers_is_never_refused(limit, delays, gaps):
    """Whatever the limit of a server whose windows begin with their first request."""
    clock = Clock()
    limits = RateLimits(clock_s=clock)
    began, used, worst = -1e9, 0, 0
    answers: list[tuple[float, int, dict[str, str]]] = []
    for step in range(900):
        clock.now += gaps[step % len(gaps)]
        while answers and answers[0][0] <= clock.now:
            limits.done(POST, heapq.heappop(answers)[2])
        if limits.wait_s(POST) > 0:
            continue
        limits.take(POST)
        if clock.now - began >= 60:
            began, used = clock.now, 0
        used += 1
        worst = max(worst, used)
        reset = int(60 - (clock.now - began)) + 1
        answer = headers(limit, max(0, limit - used), reset)
        heapq.heappush(answers, (clock.now + delays[step % len(delays)], step, answer))
    assert worst <= limit


def test_the_group_of_cancels_is_their_own():
    assert [method for method, group in GROUPS.items() if group == CANCELS] == [CANCEL]


def calls_in(limits: RateLimits, clock: Clock, method: str, seconds: int) -> int:
    """How many calls of ``method`` the budget grants in so long, asked every 50 ms."""
    end, granted = clock.now + seconds, 0
    while clock.now < end:
        if limits.wait_s(method) == 0:
            spend(limits, method)
            granted += 1
        clock.now += 0.05
    return granted


@settings(deadline=None, max_examples=25)
@given(st.integers(6, 600), st.integers(0, 20))
def test_the_accounts_own_limit_is_the_pace(per_minute, per_second):
    clock = Clock()
    limits = RateLimits(clock_s=clock)
    limits.learn([Allowance((POST,), per_minute, per_second)])
    allowed = min(per_minute, per_second * 60 or per_minute)
    granted = calls_in(limits, clock, POST, 300)
    assert SAFETY * allowed * 4.5 <= granted <= allowed * 5 + 10 * allowed / 60 + 1
    assert limits.report()["post_order"]["limit"] == per_minute


def test_methods_of_one_row_share_its_budget_and_others_keep_theirs():
    clock = Clock()
    limits = RateLimits(clock_s=clock)
    before = limits.report()
    limits.learn([Allowance((STATE, CANCEL, "OrdersService/ReplaceOrder"), 60), Allowance((CANCEL,), 90)])
    limits.learn([Allowance(("SomeService/Other",), 1), Allowance((POST,), 0)])
    for _ in range(200):
        if limits.wait_s(STATE) == 0:
            spend(limits, STATE)
    assert limits.wait_s(CANCEL) > 0
    assert limits.wait_s(POST) == 0
    after = limits.report()
    assert after["orders"]["limit"] == after[CANCELS]["limit"] == 60
    assert {name: after[name] for name in before if name not in ("orders", CANCELS)} == {
        name: before[name] for name in before if name not in ("orders", CANCELS)
    }


def test_headers_refine_what_the_tariff_said():
    clock = Clock()
    limits = RateLimits(clock_s=clock)
    limits.learn([Allowance((POST,), 600)])
    spend(limits, POST, headers(300, 0, 30))
    assert limits.report()["post_order"]["limit"] == 300
    assert limits.wait_s(POST) == pytest.approx(30)
