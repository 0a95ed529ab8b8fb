"""Log-ins: what is right, what is remembered, and whose turn it is."""

import base64
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from exporter import authentication
from exporter.authentication import (
    WAITING_ADDRESSES,
    WAITING_PER_ADDRESS,
    WRONG_LOGINS_KEPT,
    Authenticator,
    Turns,
    Verdict,
    matches,
    parse_basic,
)
from tests.clients import WAIT_SECONDS
from tests.servers import wait_until
from tests.webs import basic, hash_of

USERS = {b"alice": hash_of("a").encode(), b"bob": hash_of("b", cost=5).encode()}
HOME = "192.0.2.1"


class Comparisons:
    """Counts comparisons of passwords with hashes; they can be held up."""

    def __init__(self) -> None:
        self.hashes: list[bytes] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        self.hashes.append(hashed)
        assert self.gate.wait(WAIT_SECONDS)
        return matches(password, hashed)


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> Iterator[Comparisons]:
    counted = Comparisons()
    monkeypatch.setattr(authentication, "matches", counted)
    yield counted
    counted.gate.set()


@pytest.fixture
def judge() -> Callable[..., Verdict]:
    authenticator = Authenticator()

    def judge(
        user: str = "alice",
        password: str = "a",
        address: str = HOME,
        users: dict[bytes, bytes] = USERS,
    ) -> Verdict:
        return authenticator.judge(users, basic(user, password), address)

    return judge


Judge = Callable[..., Verdict]


@pytest.mark.parametrize(
    ("user", "password", "verdict"),
    [
        ("alice", "a", Verdict.RIGHT),
        ("bob", "b", Verdict.RIGHT),
        ("alice", "b", Verdict.WRONG),
        ("alice", "", Verdict.WRONG),
        ("Alice", "a", Verdict.WRONG),
        ("mallory", "a", Verdict.WRONG),
        ("", "", Verdict.WRONG),
    ],
)
def test_password_has_to_be_the_users(
    user: str, password: str, verdict: Verdict, judge: Judge
) -> None:
    assert [judge(user, password) for _ in range(3)] == [verdict] * 3


@pytest.mark.parametrize(
    "authorization",
    [
        *(
            "",
            "Basic",
            "Basic ",
            "Bearer YTph",
            "Digest username=alice",
            "YWxpY2U6YQ==",
        ),
        *("Basic YWxpY2U6YQ", "Basic  YWxpY2U6YQ==", "Basic YWxpY2U6YQ==, Basic x"),
        *("Basic YWxp\xe4", "Basic YWxpY2U6YQ==\0", "Basic YWxpY2U="),
    ],
    ids=ascii,
)
def test_what_is_no_login_is_wrong(
    authorization: str, comparisons: Comparisons
) -> None:
    assert Authenticator().judge(USERS, authorization, HOME) is Verdict.WRONG
    assert comparisons.hashes == []


@pytest.mark.parametrize("login", [b"\xff:\xff", b"alice:\xff\xfe", b"alice:a\0", b":"])
def test_bytes_that_are_no_text_are_wrong(login: bytes) -> None:
    header = "Basic " + base64.b64encode(login).decode()
    assert Authenticator().judge(USERS, header, HOME) is Verdict.WRONG


def test_password_may_have_colons_and_the_scheme_any_case() -> None:
    assert parse_basic("BASIC " + basic("a", "b:c")[6:]) == (b"a", b"b:c")


def test_password_of_72_bytes_is_the_longest(judge: Judge) -> None:
    longest = "x" * 72
    users = {b"alice": hash_of(longest).encode()}

    assert judge("alice", longest, users=users) is Verdict.RIGHT
    assert judge("alice", longest + "x", users=users) is Verdict.WRONG


def test_each_login_is_compared_once(judge: Judge, comparisons: Comparisons) -> None:
    for _ in range(3):
        judge("alice", "a")
        judge("alice", "wrong")
        judge("mallory", "a")

    assert len(comparisons.hashes) == 3


def test_unknown_users_cost_as_much_as_known_ones(
    judge: Judge, comparisons: Comparisons
) -> None:
    for password in ("x", "x" * 100, "\0"):
        judge("alice", password)
        judge("mallory", password)

    assert len(comparisons.hashes) == 6
    assert comparisons.hashes[::2] == [USERS[b"alice"]] * 3
    assert len(set(comparisons.hashes[1::2])) == 1  # always the same time


def test_unknown_users_take_the_times_of_all_known_ones(
    judge: Judge, comparisons: Comparisons
) -> None:
    for number in range(40):
        judge(f"user{number}", "x")

    assert set(comparisons.hashes) == set(USERS.values())


def test_verdict_dies_with_the_hash(judge: Judge) -> None:
    assert judge("alice", "a") is Verdict.RIGHT
    assert judge("alice", "new") is Verdict.WRONG

    changed = USERS | {b"alice": hash_of("new").encode()}

    assert judge("alice", "a", users=changed) is Verdict.WRONG
    assert judge("alice", "new", users=changed) is Verdict.RIGHT


def test_removed_user_is_out(judge: Judge) -> None:
    assert judge("alice", "a") is Verdict.RIGHT

    assert judge("alice", "a", users={b"bob": USERS[b"bob"]}) is Verdict.WRONG
    # Not even under a name for which alice's hash stands in.
    only = {b"eve": USERS[b"alice"]}
    assert judge("alice", "a", users=only) is Verdict.WRONG
    assert judge("eve", "a", users=only) is Verdict.RIGHT


def test_flood_of_wrong_logins_does_not_drive_out_right_ones(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge("alice", "a")
    with monkeypatch.context() as patch:
        patch.setattr(authentication, "matches", lambda *_: False)
        for number in range(WRONG_LOGINS_KEPT + 10):
            judge("alice", f"wrong{number}")
    monkeypatch.setattr(authentication, "matches", None)

    assert judge("alice", "a") is Verdict.RIGHT
    assert judge("alice", f"wrong{WRONG_LOGINS_KEPT}") is Verdict.WRONG
    with pytest.raises(TypeError):  # forgotten: it would be compared again
        judge("alice", "wrong0")


def test_passwords_are_not_kept(comparisons: Comparisons) -> None:
    authenticator = Authenticator()
    authenticator.judge(USERS, basic("alice", "a secret"), HOME)

    kept = repr([authenticator._right, authenticator._wrong])

    assert len(kept) > 30
    assert "secret" not in kept


@contextmanager
def comparing(judge: Judge, comparisons: Comparisons) -> Iterator[ThreadPoolExecutor]:
    """Hold up a comparison, of a log-in from elsewhere."""
    comparisons.gate.clear()
    with ThreadPoolExecutor(200) as pool:
        try:
            pool.submit(judge, "bob", "slow", "198.51.100.1")
            wait_until(lambda: comparisons.hashes, WAIT_SECONDS)
            yield pool
        finally:
            comparisons.gate.set()


def test_known_login_does_not_wait(judge: Judge, comparisons: Comparisons) -> None:
    judge("alice", "a")
    comparisons.hashes.clear()
    with comparing(judge, comparisons):
        assert judge("alice", "a") is Verdict.RIGHT


def test_one_comparison_runs_at_a_time(judge: Judge, comparisons: Comparisons) -> None:
    with comparing(judge, comparisons) as pool:
        other = pool.submit(judge, "alice", "a")
        assert len(comparisons.hashes) == 1
        comparisons.gate.set()
        assert other.result(WAIT_SECONDS) is Verdict.RIGHT


def test_same_login_many_times_is_compared_once(
    judge: Judge, comparisons: Comparisons
) -> None:
    with comparing(judge, comparisons) as pool:
        logins = [pool.submit(judge) for _ in range(WAITING_PER_ADDRESS)]
        comparisons.gate.set()
        assert {login.result(WAIT_SECONDS) for login in logins} == {Verdict.RIGHT}
    assert comparisons.hashes[1:] == [USERS[b"alice"]]


def test_scraper_gets_in_beside_a_flood(judge: Judge, comparisons: Comparisons) -> None:
    with comparing(judge, comparisons) as pool:
        flood = [pool.submit(judge, "alice", f"x{n}", "203.0.113.5") for n in range(99)]
        wait_until(lambda: sum(login.done() for login in flood) >= 91, WAIT_SECONDS)
        scraper = pool.submit(judge)
        # Refused at once are those beyond the flood's own line, and nobody else.
        done = [login.result() for login in flood if login.done()]
        assert done == [Verdict.UNDECIDED] * 91
        comparisons.gate.set()
        assert scraper.result(WAIT_SECONDS) is Verdict.RIGHT
    assert comparisons.hashes.index(USERS[b"alice"], 2) <= 3


def test_addresses_take_turns() -> None:
    turns, order = Turns(), list[str]()

    def work(address: str) -> None:
        with turns.take(address) as is_ours:
            assert is_ours
            order.append(address)

    with ThreadPoolExecutor(10) as pool, turns.take("x"):
        for number, address in enumerate("aaabbc", 1):
            pool.submit(work, address)
            wait_until(partial(is_waiting, turns, number), WAIT_SECONDS)
    assert order == ["a", "b", "c", "a", "b", "a"]


def is_waiting(turns: Turns, number: int) -> bool:
    """Tell whether so many wait for their turn."""
    with turns._changed:
        return sum(len(line) for line in turns._lines.values()) == number


def test_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns()
    with ExitStack() as stack, ThreadPoolExecutor(200) as pool:
        stack.enter_context(turns.take("x"))
        monkeypatch.setattr(authentication, "WAIT_SECONDS", 0.2)

        def attempt(address: str) -> bool:
            with turns.take(address) as is_ours:
                return is_ours

        tries = [pool.submit(attempt, f"a{n}") for n in range(WAITING_ADDRESSES + 3)]
        wait_until(lambda: sum(t.done() for t in tries) == 3, WAIT_SECONDS)
        assert [t.result(WAIT_SECONDS) for t in tries] == [False] * len(tries)
        assert turns._lines == {}
    with turns.take("x") as is_ours:
        assert is_ours


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:3:4:5:6", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("::1", "::ffff:127.0.0.1", False),
        ("fe80::1%lo", "fe80::2%lo", True),
    ],
)
def test_one_network_of_ipv6_is_one_client(
    one: str, other: str, are_same: bool
) -> None:
    same = authentication._neighbourhood(one) == authentication._neighbourhood(other)
    assert same is are_same
