"""Answers of providers that are no answers, limits, and pages that do not add up."""

import time
from email.utils import formatdate
from typing import Any

import pytest

from providers import Handler
from searching import once, pictures, provided, search, waits  # noqa: F401
from vislang.curate.images import Searching
from vislang.curate.images.asking import Manners
from vislang.errors import UserError
from vislang.files import read_json

# -- answers that are no answers ------------------------------------------------------------------


def test_429_with_retry_after_in_seconds_and_as_a_date(server, tmp_path, monkeypatch):
    waited = waits(monkeypatch)
    later = formatdate(time.time() + 120, usegmt=True)
    server.tricks.append(once({"status": 429, "Retry_After": "7"},
                              {"status": 429, "Retry_After": later}))  # fmt: skip
    done = search(server, tmp_path, ["sun"])
    assert done["pictures"] == 65 and done["providers"]["openverse"]["failed"] == {}
    assert waited[0] == pytest.approx(7, abs=0.1) and waited[1] == pytest.approx(120, abs=3)


def test_5xx_and_broken_connections_are_asked_again_ever_later(server, tmp_path, monkeypatch):
    waited = waits(monkeypatch)

    def breaks(handler: Handler, name: str, query: dict[str, str]) -> bool:
        if len(server.asked) == 3:
            handler.connection.close()
            return True
        return False

    server.tricks += [breaks, once({"status": 500}, {"status": 503, "body": b"<html>busy"})]
    done = search(server, tmp_path, ["sun"], manners=Manners(wait_s=1))
    assert done["pictures"] == 65 and len(waited) == 3
    for turn, seconds in enumerate(waited):
        assert 0.49 * 2**turn <= seconds <= 1.51 * 2**turn


def test_the_limit_that_headers_tell_is_waited_for(server, tmp_path, monkeypatch):
    waited = waits(monkeypatch)
    page = server.openverse({"q": "sun", "page": "1"})
    server.tricks.append(once(
        {"body": page, "X_RateLimit_Limit_anon_burst": "20/min",
         "X_RateLimit_Available_anon_burst": "0", "X_RateLimit_Available_anon_sustained": "90"},
    ))  # fmt: skip
    search(server, tmp_path / "a", ["sun"])
    assert waited == [pytest.approx(60, abs=0.5)]
    page = server.unsplash({"query": "sun", "page": "1"})
    server.tricks[:] = [
        once({"body": page, "X_Ratelimit_Limit": "50", "X_Ratelimit_Remaining": "0"})
    ]
    search(server, tmp_path / "b", ["sun"], ["unsplash"])
    assert 0 < waited[1] <= 3602  # to the next hour of the clock
    server.tricks[:] = [once({"body": page, "X_Ratelimit_Remaining": "0",
                              "X_Ratelimit_Reset": str(int(time.time()) + 30)})]  # fmt: skip
    search(server, tmp_path / "c", ["sun"], ["unsplash"])
    assert waited[2] == pytest.approx(30, abs=2)


def test_a_wait_beyond_our_patience_ends_the_work_which_goes_on_later(server, tmp_path):
    page = server.openverse({"q": "sun", "page": "1"})
    server.tricks.append(once({"body": page}, {"status": 429, "Retry_After": "86400"}))
    with pytest.raises(UserError, match=r"wait for 86,[34]\d\d s.*Repeat the command"):
        search(server, tmp_path, ["sun"])
    assert search(server, tmp_path, ["sun"])["pictures"] == 65
    pages = [query["page"] for _, query, _ in server.asked]
    assert pages == ["1", "2", "2", "3", "4"]  # the first page came from disk


def test_unsplash_says_403_for_too_many_requests_and_for_a_wrong_key(server, tmp_path, monkeypatch):
    waited = waits(monkeypatch)
    server.tricks.append(once({"status": 403, "body": b"Rate Limit Exceeded"}))
    assert search(server, tmp_path / "a", ["sun"], ["unsplash"])["pictures"] == 65
    assert len(waited) == 1
    server.tricks[:] = [once({"status": 403, "body": {"errors": ["OAuth error"]}})]
    with pytest.raises(UserError, match="refuses us"):
        search(server, tmp_path / "b", ["sun"], ["unsplash"])


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_an_error_at_once(status, server, tmp_path):
    server.tricks.append(lambda handler, *_: handler.send({"detail": "no"}, status) or True)
    with pytest.raises(UserError) as error:
        search(server, tmp_path, [f"w{n}" for n in range(60)], ["unsplash"])
    assert "UNSPLASH_ACCESS_KEY" in str(error.value) and "unsplash.com" in str(error.value)
    assert server.count() == {"unsplash": 1}


def test_a_missing_key_is_an_error_before_anything_is_asked(server, tmp_path, monkeypatch):
    monkeypatch.delenv("UNSPLASH_ACCESS_KEY")
    with pytest.raises(UserError, match="set the environment variable UNSPLASH_ACCESS_KEY"):
        search(server, tmp_path, providers=["openverse", "unsplash"])
    assert not server.asked


def test_html_is_a_counted_reason_and_other_words_go_on(server, tmp_path):
    def html(handler: Handler, name: str, query: dict[str, str]) -> bool:
        if query["q"] == "bad":
            handler.send(b"<!DOCTYPE html><p>Maintenance", Content_Type="text/html")
        return query["q"] == "bad"

    server.tricks.append(html)
    done = search(server, tmp_path, ["sun", "bad", "moon"])
    assert done["providers"]["openverse"]["failed"] == {"HTML instead of JSON": 1}
    assert done["pictures"] == 124
    assert read_json(tmp_path / "units" / "openverse-000000.json")["failed"][0][0] == "bad"
    server.tricks.clear()
    before = len(server.asked)
    done = search(server, tmp_path, ["sun", "bad", "moon"], retry_failed=True)
    assert done["providers"]["openverse"]["failed"] == {}
    assert {query["q"] for _, query, _ in server.asked[before:]} == {"bad"}


@pytest.mark.parametrize(("reply", "reason"), [
    ({"body": b"<html>"}, "HTML instead of JSON"), ({"body": b"\xff\xfe{"}, "not JSON"),
    ({"body": [1]}, "JSON of another kind"), ({"body": b"[" * 200_000}, "not JSON"),
    ({"status": 404}, "http 404"), ({"status": 500}, "http 500"),
    ({"body": {"error": {"code": "internal_api_error", "info": "x"}}}, "error internal_api_error"),
    ({"body": b"\x1f\x8bnone", "Content_Encoding": "gzip"}, "no connection (OSError)"),
])  # fmt: skip
def test_reasons(reply, reason, server, tmp_path):
    server.tricks.append(
        lambda handler, *_: handler.send(**{"body": {"a": 1}} | dict(reply)) or True
    )
    done = search(server, tmp_path, ["sun"], manners=Manners(tries=2, wait_s=0.001))
    assert done["providers"]["openverse"]["failed"] == {reason: 1}


def test_when_no_word_gets_an_answer_it_is_not_the_words_fault(server, tmp_path):
    server.tricks.append(lambda handler, *_: handler.send(b"<html>login") or True)
    words = [f"w{n}" for n in range(30)]
    with pytest.raises(UserError, match="5 words in a row, last: HTML"):
        search(server, tmp_path, words, manners=Manners(tries=1, wait_s=0.001))
    assert len(server.asked) == 5
    server.tricks.clear()
    server.pictures = 2
    assert search(server, tmp_path, words)["pictures"] == 60


def test_wikimedia_says_that_it_lags_with_status_200(server, tmp_path, monkeypatch):
    waited = waits(monkeypatch)
    server.tricks.append(once({"body": {"error": {"code": "maxlag", "info": "6 s"}},
                               "Retry_After": "5"}))  # fmt: skip
    assert search(server, tmp_path, ["sun"], ["wikimedia"])["pictures"] == 65
    assert waited == [pytest.approx(5, abs=0.1)]


def test_a_redirect_is_not_followed_with_the_key(server, tmp_path):
    server.tricks.append(once({"status": 302, "Location": f"{server.base}/elsewhere"}))
    with pytest.raises(UserError, match="leads elsewhere"):
        search(server, tmp_path, ["sun"], ["unsplash"])
    assert server.count() == {"unsplash": 1}


def test_an_endless_answer_and_a_dripping_one(server, tmp_path, monkeypatch):
    monkeypatch.setattr("vislang.curate.images.asking.MAX_BYTES", 100_000)

    def drip(handler: Handler, name: str, query: dict[str, str]) -> bool:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(3000):
            handler.wfile.write(b" " * (1000 if query["q"] == "big" else 1))
            if query["q"] != "big":
                time.sleep(0.05)
        return True

    server.tricks.append(drip)
    began = time.monotonic()
    done = search(server, tmp_path, ["big", "slow"], manners=Manners(tries=1, seconds=0.5))
    assert done["providers"]["openverse"]["failed"] == {
        "no connection (OSError)": 1, "no connection (TimeoutError)": 1,
    }  # fmt: skip
    assert time.monotonic() - began < 15


# -- pages that do not add up ---------------------------------------------------------------------


def test_pages_that_repeat_end_a_word_with_a_note(server, tmp_path):
    def repeat(handler: Handler, name: str, query: dict[str, str]) -> bool:
        if int(query["page"]) > 2:
            handler.send(server.openverse({"q": query["q"], "page": "2"}))
            return True
        return False

    server.tricks.append(repeat)
    server.pictures = 400
    done = search(server, tmp_path, ["sun"])
    assert done["pictures"] == 40 and done["providers"]["openverse"]["rejected"] == {"repeated": 20}
    note = read_json(tmp_path / "units" / "openverse-000000.json")
    assert note["notes"] == [["sun", "page 3 repeats earlier ones"]]
    assert len(server.asked) == 3


@pytest.mark.parametrize(("totals", "asked", "note"), [
    ((400, 30, 30), 2, "page 2 says 30 in all, not 400"),  # it shrinks
    ((30, 55, 55), 3, "page 2 says 55 in all, not 30"),  # it grows
])  # fmt: skip
def test_a_total_that_changes_midway(totals, asked, note, server, tmp_path):
    def change(name: str, answer: dict[str, Any]) -> None:
        total = totals[answer["page"] - 1]
        answer["result_count"], answer["page_count"] = total, -(-total // 20)

    server.change = change
    search(server, tmp_path, ["sun"])
    notes = read_json(tmp_path / "units" / "openverse-000000.json")["notes"]
    assert len(server.asked) == asked and ["sun", note] in notes


def test_fewer_pages_than_promised_and_more_than_are_answered_for(server, tmp_path):
    server.pictures = 30
    server.change = lambda name, answer: answer.update(result_count=500, page_count=25)
    done = search(server, tmp_path / "a", ["sun"])
    assert done["pictures"] == 30 and done["providers"]["openverse"]["notes"] == 1
    server.pictures, server.asked = 10_000, []
    search(server, tmp_path / "b", ["sun"])
    assert len(server.asked) == 20  # Openverse answers for no more


@pytest.mark.parametrize(("most", "requests"), [(1, 1), (30, 1), (31, 2), (60, 2), (1000, 3)])
def test_the_cap_of_a_word(most, requests, server, tmp_path):
    done = search(server, tmp_path, ["sun"], ["unsplash"], Searching(per_word=most))
    assert done["pictures"] == min(most, 65) and len(server.asked) == requests
