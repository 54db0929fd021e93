"""What a server's errors mean: a fault of the set-up stops the job and leaves nothing behind, a
fault of one request is that request's, and a refusal is a refusal.
"""

import itertools
import json
import sqlite3
import time
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.running import log as job_log
from lfp.services.answer_cache import AnswerCache, request_key
from lfp.services.client import (
    CONTROL,
    ENDPOINT,
    MARK,
    BatchPendingError,
    Client,
    ServiceError,
)
from lfp.services.connection import _response
from lfp.services.faults import REFUSAL, REQUEST, RETRY, SCHEMA, SETUP, UNKNOWN, remedy, sort_fault
from tests import language_service as faulty
from tests.language_service import LanguageService
from tests.test_llm import PRICES, echo, requests, service

BODY = {
    "model": "m", "messages": [], "max_tokens": 50, "temperature": 0, "seed": 0, "top_k": 5,
    "response_format": {},
}  # fmt: skip


def openai_error(message: str, code: str | None = None, param: str | None = None) -> dict:
    kind = "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


@pytest.mark.parametrize(
    ("status", "content", "kind", "advice"),
    [
        # The account and the key, in the words and under the statuses of several vendors.
        (401, openai_error("Incorrect API key provided", "invalid_api_key"), SETUP, "key in KEY"),
        (403, {"detail": "Forbidden"}, SETUP, "key in KEY"),
        (402, {"error": {"message": "Insufficient Balance"}}, SETUP, "settle it"),
        (429, openai_error("You exceeded your quota", "insufficient_quota"), SETUP, "settle it"),
        (429, {"error": {"message": "Check your plan and billing details."}}, SETUP, "settle it"),
        (400, {"type": "error", "error": {
            "type": "invalid_request_error",
            "message": "Your credit balance is too low to access the API."}}, SETUP, "settle it"),
        (400, {"code": "Arrearage", "message": "Access denied, account not in good standing"},
         SETUP, "settle it"),
        (400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid one.",
                          "status": "INVALID_ARGUMENT"}}], SETUP, "key in KEY"),
        (403, openai_error("Your account was suspended: it violated our policies"), SETUP, ""),
        # The model, the address, the parameters.
        (404, openai_error("The model `m` does not exist", "model_not_found"), SETUP, "s.model"),
        (404, {"error": "model 'm' not found, try pulling it first"}, SETUP, "s.model"),
        (404, "<!doctype html><html><h1>Not Found</h1></html>", SETUP, "s.base_url"),
        (405, {"detail": "Method Not Allowed"}, SETUP, "s.base_url"),
        (400, openai_error("Unsupported parameter: use 'max_completion_tokens' instead.",
                           "unsupported_parameter", "max_tokens"), SETUP, "max_tokens_field"),
        (400, openai_error("Only the default (1) value is supported.", "unsupported_value",
                           "temperature"), SETUP, "s.temperature (null"),
        (422, {"detail": [{"loc": ["body", "top_k"], "msg": "Extra inputs are not permitted",
                           "type": "extra_forbidden"}]}, SETUP, "s.extra_body (top_k)"),
        (400, openai_error("max_tokens is too large: 50. This model supports at most 40", None,
                           "max_tokens"), SETUP, "s.max_tokens"),
        (400, openai_error("This model's maximum context length is 50 tokens. However, you "
                           "requested 60 tokens (10 in the messages, 50 in the completion).",
                           "context_length_exceeded", "messages"), SETUP, ""),
        # This request.
        (400, openai_error("This model's maximum context length is 4096 tokens. However, you "
                           "requested 5000 tokens (4950 in the messages, 50 in the completion).",
                           "context_length_exceeded", "messages"), REQUEST, None),
        (400, {"error": {"code": 400, "type": "exceed_context_size_error",
                         "message": "the request exceeds the available context size"}},
         REQUEST, None),
        (400, {"object": "error", "message": "prompt is too long: 9000 tokens > 8000 maximum"},
         REQUEST, None),
        (413, "<html><title>413 Request Entity Too Large</title></html>", REQUEST, None),
        # Refusals.
        (400, openai_error("The response was filtered", "content_filter", "prompt"), REFUSAL, None),
        (400, {"error": {"code": None, "message": "x", "innererror": {
            "code": "ResponsibleAIPolicyViolation"}}}, REFUSAL, None),
        (500, {"error": {"message": "AzureException: the prompt triggered the content management "
                         "policy", "code": "500"}}, REFUSAL, None),
        (400, {"error": {"message": "Provider returned error", "code": 400, "metadata": {
            "raw": '{"error": {"code": "content_filter", "message": "no"}}'}}}, REFUSAL, None),
        (400, openai_error("Output blocked by content filtering policy"), REFUSAL, None),
        (400, {"code": "DataInspectionFailed", "message": "Input data may be inappropriate"},
         REFUSAL, None),
        (403, {"error": {"code": 403, "message": "m requires moderation and your input was flagged",
                         "metadata": {"reasons": ["violence"]}}}, REFUSAL, None),
        (403, {"code": "The caller does not have permission to execute the operation",
               "error": "Content violates usage guidelines. API key ID: 1, Failed check: SAFETY"},
         REFUSAL, None),
        (400, {"contentFilter": [{"level": 1}], "error": {
            "code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}},
         REFUSAL, None),
        (200, {"choices": [], "prompt_filter_results": [
            {"content_filter_results": {"hate": {"filtered": True, "severity": "high"}}}]},
         REFUSAL, None),
        (200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, REFUSAL, None),
        (429, {"error": {"code": "1113", "message": "您的账户已欠费，请充值后重试。"}}, SETUP,
         "settle it"),
        # Later.
        (400, {"message": "Too many tokens per day, please wait before trying again."}, RETRY,
         None),
        (400, {"__type": "ThrottlingException", "message": "Too many tokens"}, RETRY, None),
        (429, openai_error("Rate limit reached", "rate_limit_exceeded"), RETRY, None),
        (429, [{"error": {"message": "You exceeded your current quota, check billing details.",
                          "details": [{"retryDelay": "30s"}]}}], RETRY, None),
        (503, "<html>busy</html>", RETRY, None),
        (529, {"error": {"type": "overloaded_error"}}, RETRY, None),
        # Errors with a status of success.
        (200, {"error": {"message": "Insufficient credits", "code": 402}}, SETUP, "settle it"),
        (200, {"error": {"message": "busy", "code": 503}}, RETRY, None),
        # The schema, and words that do not tell.
        (400, openai_error("response_format json_schema is not supported with this model",
                           "unsupported_parameter", "response_format"), SCHEMA, None),
        (400, openai_error("Invalid value", "invalid_value", "messages[0].content"), UNKNOWN, None),
        (400, "", UNKNOWN, None),
        (400, [], UNKNOWN, None),
        (400, {"error": None}, UNKNOWN, None),
    ],
)  # fmt: skip
def test_an_error_is_sorted_by_its_code_its_field_and_its_words(status, content, kind, advice):
    text = content if isinstance(content, str) else json.dumps(content)
    fault = sort_fault(status, text.encode(), BODY)
    assert fault.kind == kind
    if advice is not None:
        assert advice in remedy(fault, BODY, "s", "KEY")


@pytest.mark.parametrize("reason", ["length", "content_filter: PROHIBITED_CONTENT"])
def test_a_choice_without_a_message_says_why(reason):
    choice = {"index": 0, "finish_reason": reason}
    response = _response(json.dumps({"choices": [choice], "usage": {"prompt_tokens": 3}}))
    assert (response["content"], response["finish_reason"]) == (None, reason)
    assert _response(json.dumps({"choices": [choice | {"finish_reason": "stop"}]})) is None


SET_UPS = {
    "credit": (faulty.error(400, "Your credit balance is too low"), "balance is too low; settle"),
    "quota": (faulty.error(429, "You exceeded it", "insufficient_quota"), "exceeded it; settle"),
    "model": (faulty.error(404, "no model a-model"), "a-model; change services.test.model"),
    "temperature": (
        faulty.error(400, "Unsupported value", param="temperature"),
        r"Unsupported value; change services.test.temperature \(null",
    ),
    "words": (faulty.error(400, "E1234"), "400: E1234; check services.test"),
    "page": (
        lambda request: faulty.send_bytes(
            request, 200, b"<html>Log in</html>", {"Content-Type": "text/html"}
        )
        or True,
        "web page, no answer of an API: Log in; check services.test.base_url",
    ),
    "status in the body": (
        lambda request: faulty.send(request, 200, {"error": {"code": 402, "message": "pay"}})
        or True,
        "402: pay; settle it",
    ),
}  # fmt: skip


def test_a_limit_that_stays_names_the_keys_that_keep_within_it(tmp_path):
    limit = faulty.error(429, "Rate limit reached", "rate_limit_exceeded")
    with (
        LanguageService(echo, itertools.repeat(limit)) as server,
        Client(service(server.url, attempts=2), tmp_path / "c.sqlite") as client,
        pytest.raises(ServiceError, match=r"Rate limit reached; lower services\.test\.in_flight"),
    ):
        client.ask(requests(1))


@pytest.mark.parametrize("name", SET_UPS)
def test_a_fault_of_the_set_up_stops_the_job_and_leaves_nothing_behind(tmp_path, name):
    fault, message = SET_UPS[name]
    with LanguageService(echo, itertools.repeat(fault)) as server:
        options = service(server.url, in_flight=2)
        with (
            Client(options, tmp_path / "c.sqlite") as client,
            pytest.raises(ServiceError, match=message),
        ):
            client.ask(requests(30))
        assert len(server.bodies) <= 2 * 3 + 1
        assert (
            not sqlite3.connect(tmp_path / "c.sqlite").execute("select * from answers").fetchall()
        )
        server.faults = itertools.repeat(None)  # the user has mended it
        with Client(options, tmp_path / "c.sqlite") as client:
            assert {answer.status for answer in client.ask(requests(3))} == {"ok"}


def refused_for(numbers: set[int], message: str, **details):
    """A reply that is an error of unknown words for some of :func:`requests`."""

    def reply(body):
        if int(body["messages"][0]["content"].split()[1]) in numbers and (
            body["messages"][0]["content"] != CONTROL
        ):
            raise faulty.Refusal(400, {"error": {"message": message, **details}})
        return echo(body)

    return reply


@pytest.mark.parametrize("numbers", [{0}, {3}, {7}, {0, 1, 2, 3, 4, 5, 6}, set(range(8))])
def test_an_unknown_error_is_of_the_request_where_a_control_succeeds(tmp_path, numbers):
    with LanguageService(refused_for(numbers, "E77")) as server:
        for _ in range(2):
            with Client(service(server.url), tmp_path / "c.sqlite") as client:
                answers = client.ask(requests(8))
            assert {i for i, a in enumerate(answers) if a.status == "rejected"} == numbers
            assert all(a.value == {"n": i} for i, a in enumerate(answers) if i not in numbers)
            calls = len(server.bodies)
        # With the schema again, without it, and the control; none in the second run.
        assert calls == 8 + 3 * len(numbers)


def test_an_account_that_runs_dry_in_the_middle_loses_no_answer_and_records_no_rejection(tmp_path):
    dry = itertools.chain([None] * 5, itertools.repeat(faulty.error(400, "E_BAL")))
    with LanguageService(echo, dry) as server:
        options = service(server.url, in_flight=1)
        with (
            Client(options, tmp_path / "c.sqlite") as client,
            pytest.raises(ServiceError, match="E_BAL.*4 of 9 requests have no answer"),
        ):
            client.ask(requests(9))
        assert len(server.bodies) == 5 + 4
        server.faults = iter(())
        with Client(options, tmp_path / "c.sqlite") as client:
            assert [answer.value["n"] for answer in client.ask(requests(9))] == list(range(9))
            assert client.counts["called"] == 4


@pytest.mark.parametrize(
    "fault",
    [
        faulty.error(400, "The response was filtered", "content_filter"),
        faulty.error(400, "Output blocked by content filtering policy"),
        lambda request: faulty.send(request, 200, faulty.completion("", choices=[
            {"finish_reason": "content_filter", "message": {"content": None}}])) or True,
        lambda request: faulty.send(request, 200, faulty.completion("", choices=[
            {"finish_reason": "stop", "message": {"content": [
                {"type": "refusal", "refusal": "I cannot"}]}}])) or True,
        lambda request: faulty.send(request, 200, faulty.completion(
            "<think>Shall I?</think>I'm sorry, but I can't help with that.")) or True,
    ],
    ids=["code", "words", "finish reason", "part", "plain text"],
)  # fmt: skip
def test_a_refusal_is_one_and_is_not_repaired(tmp_path, fault):
    with LanguageService(echo, itertools.repeat(fault)) as server:
        for _ in range(2):
            with Client(service(server.url), tmp_path / "c.sqlite") as client:
                assert [answer.status for answer in client.ask(requests(1))] == ["refused"]
        assert len(server.bodies) == 1


def test_rejections_of_an_earlier_release_count_only_where_their_words_are_the_requests(tmp_path):
    words = [
        "400: Error code: 400 - Your credit balance is too low",
        "400: Error code: 400 - unknown trouble",
        "400: This model's maximum context length is 128 tokens",
        "400: the prompt triggered the content management policy",
    ]
    with LanguageService(echo) as server:
        with Client(service(server.url), tmp_path / "c.sqlite") as client:
            bodies = [client._body(request) for request in requests(4)]
            for body, rejected in zip(bodies, words, strict=True):
                key = request_key(server.url, ENDPOINT, body)
                client.cache.put(key, body, {"rejected": rejected}, "test", 0)
            answers = client.ask(requests(4))
        assert [a.status for a in answers] == ["ok", "ok", "rejected", "refused"]
        assert len(server.bodies) == 2
        with Client(service(server.url, offline=True), tmp_path / "c.sqlite") as client:
            assert client.ask(requests(4)) == answers


def test_parts_of_a_wrong_key_reach_no_message(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", " sk-verysecretkey\n")  # a line's end is no part of a key
    fault = faulty.error(401, "Incorrect API key provided: sk-ve*****tkey. Or sk-verysecretkey")
    with LanguageService(echo, itertools.repeat(fault)) as server:
        options = service(server.url, api_key_env="TEST_KEY")
        with (
            Client(options, tmp_path / "c.sqlite") as client,
            pytest.raises(
                ServiceError, match=r"provided: \*\*\*.? Or \*\*\*; check the key"
            ) as error,
        ):
            client.ask(requests(1))
        assert server.headers[0]["Authorization"] == "Bearer sk-verysecretkey"
        server.faults = iter(())
        server.reply = lambda body: '{"n": 1} sk-verysecretkey'
        with Client(options, tmp_path / "c.sqlite") as client:
            assert "secret" not in client.ask(requests(1))[0].text
    assert "sk-ve" not in str(error.value)
    assert all(b"verysecret" not in path.read_bytes() for path in tmp_path.iterdir())
    monkeypatch.setenv("TEST_KEY", "sk-very\nsecretkey")
    with pytest.raises(ServiceError, match="one line of ASCII") as error:
        Client(options, tmp_path / "c.sqlite")
    assert "secretkey" not in str(error.value)


@pytest.mark.parametrize("padding", [300, 455, 470])
def test_no_part_of_a_key_is_left_where_a_text_is_cut(tmp_path, monkeypatch, padding):
    monkeypatch.setenv("TEST_KEY", "sk-proj-ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    key = "sk-proj-ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    filtered = faulty.error(400, "p" * padding + f" key {key}", "content_filter")
    echoed = sends(faulty.completion('{"n": 1}', model=f"gateway/{key}", system_fingerprint=key))
    page = f"<html>{'x ' * 85} Bearer {key}</html>".encode()

    def missing(request):
        faulty.send_bytes(request, 404, page, {"Content-Type": "text/html"})
        return True

    with (
        LanguageService(echo, iter([filtered, echoed, missing])) as server,
        Client(service(server.url, api_key_env="TEST_KEY", in_flight=1), tmp_path / "c") as client,
    ):
        first, second = client.ask(requests(2))
        with pytest.raises(ServiceError, match="web page") as error:
            client.ask(requests(3))
    assert (first.status, second.status) == ("refused", "ok")
    assert "sk-p" not in f"{first} {second} {error.value}"
    assert b"sk-p" not in (tmp_path / "c").read_bytes()


def test_placeholders_for_keys_are_words_that_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("LFP_SERVICES", json.dumps({"s": {"api_key_env": "TEST_KEY"}}))
    for key in ("anything", "not-needed", "local"):
        monkeypatch.setenv("TEST_KEY", key)
        with (
            LanguageService(lambda body, key=key: f'{{"n": 1}} {key}') as server,
            Client(service(server.url, api_key_env="TEST_KEY"), tmp_path / key) as client,
        ):
            assert client.ask(requests(1))[0].text == f'{{"n": 1}} {key}'
        assert job_log._redacted(f"http://{key}host") == f"http://{key}host"
    for key in ("sk-abcd1", "a-key-of-letters-alone"):
        monkeypatch.setenv("TEST_KEY", f"{key}\n")  # a line's end is no part of a key
        assert job_log._redacted(f"no such key: {key}.") == "no such key: ***."


def test_an_error_costs_what_it_says_and_repairs_and_refusals_cost_too(tmp_path):
    def costly(request):
        usage = {"prompt_tokens": 100, "completion_tokens": 0}
        faulty.send(request, 400, {"error": {"code": "content_filter"}, "usage": usage})
        return True

    replies = iter(["no object", "I'm sorry, but I cannot do that.", '{"n": 1}'])
    with LanguageService(lambda body: next(replies), iter([costly])) as server:
        options = service(server.url, prices=PRICES, budget_usd=1, in_flight=1)
        with Client(options, tmp_path / "c.sqlite") as client:
            assert [a.status for a in client.ask(requests(3))] == ["refused", "ok", "refused"]
            assert client.usd == pytest.approx((100 + 3 * (10 + 2 * 5)) / 1e6)
            assert client.cache.spent("test") == pytest.approx(client.usd)


def sends(value):
    """A fault that answers with `value`."""

    def fault(request):
        faulty.send(request, 200, value)
        return True

    return fault


@pytest.mark.parametrize(
    "value",
    [
        {"choices": [{"message": "hi"}]},
        {"choices": None},
        {"choices": [{"message": {"content": 5}}]},
        {"choices": [{"message": {"content": '{"n": 7}'}, "finish_reason": "error"}]},
        [],
        {"error": "busy"},
    ],
)
def test_a_body_that_is_no_completion_is_asked_for_again(tmp_path, value):
    with (
        LanguageService(echo, iter([sends(value)])) as server,
        Client(service(server.url), tmp_path / "c.sqlite") as client,
    ):
        assert client.ask(requests(1))[0].value == {"n": 0}


def test_counts_that_are_none_and_half_pairs_in_an_answer_break_nothing(tmp_path):
    odd = [faulty.completion("half a pair: \ud800"), faulty.completion('{"n": 1}', usage=None)]
    odd[0]["usage"] = {"prompt_tokens": None, "completion_tokens": "many"}
    with (
        LanguageService(echo, map(sends, odd)) as server,
        Client(service(server.url, prices=PRICES), tmp_path / "c.sqlite") as client,
    ):
        assert client.ask(requests(1))[0].value == {"n": 1}  # by its repair
        assert client.usd > 0


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["error", "message", "code", "type", "param", "detail", "loc", "choices", "content",
             "usage", "raw", "status", "finish_reason", "retryDelay", "refusal"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(value=JSON_VALUES, status=st.sampled_from([200, 400, 401, 413, 422, 429, 500]))
def test_any_body_is_sorted_and_none_is_recorded_under_a_status_of_the_set_up(value, status):
    fault = sort_fault(status, json.dumps(value), BODY)
    assert fault.kind in (RETRY, REQUEST, REFUSAL, SETUP, SCHEMA, UNKNOWN)
    assert fault.kind == SETUP or status != 401
    assert remedy(fault, BODY, "s", None)
    assert _response(json.dumps(value)) is None or isinstance(value, dict)


def sends_bytes(content: bytes, status: int = 200, kind: str = "application/json"):
    """A fault that answers with `content`."""

    def fault(request):
        faulty.send_bytes(request, status, content, {"Content-Type": kind})
        return True

    return fault


COFFEE = json.dumps(faulty.completion('café {"n": 0}'), ensure_ascii=False)
ODD = {
    "mark of UTF-8": (b"\xef\xbb\xbf" + COFFEE.encode(), "application/json"),
    "charset": (COFFEE.encode("latin-1"), "application/json; charset=iso-8859-1"),
    "wrong charset": (COFFEE.encode(), "application/json; charset=iso-8859-1"),
    "no charset": (COFFEE.encode(), "application/json; charset=none"),
    "fingerprint": (COFFEE.replace('"fp"', "NaN").encode(), "application/json"),
    "tokens": (COFFEE.replace("10", "1" * 400).encode(), "application/json"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_body_with_an_answer_is_one_and_is_charged_once(tmp_path, name):
    content, kind = ODD[name]
    with (
        LanguageService(echo, iter([sends_bytes(content, kind=kind)])) as server,
        Client(service(server.url, prices=PRICES), tmp_path / "c.sqlite") as client,
    ):
        [answer] = client.ask(requests(1))
        assert (answer.status, answer.text) == ("ok", 'café {"n": 0}')
        assert len(server.bodies) == 1
        assert 0 < client.cache.spent("test") < 1


@pytest.mark.parametrize("status", [200, 400])
def test_a_body_without_an_end_is_an_error_of_the_service(tmp_path, monkeypatch, status):
    monkeypatch.setattr("lfp.services.connection._LARGEST", 1000)
    with (
        LanguageService(echo, itertools.repeat(sends_bytes(b" " * 5000, status))) as server,
        Client(service(server.url, prices=PRICES), tmp_path / "c.sqlite") as client,
    ):
        with pytest.raises(ServiceError, match=r"more than .* MB; check that services\.test\.base"):
            client.ask(requests(1))
        assert len(server.bodies) == 1
        assert client.cache.unconfirmed("test") > 0


def test_an_unclear_error_of_a_moment_leaves_the_schema_on(tmp_path):
    with LanguageService(echo, iter([faulty.error(400, "Bad Request")])) as server:
        with Client(service(server.url, in_flight=1), tmp_path / "c.sqlite") as client:
            client.ask(requests(2))
        assert ["response_format" in body for body in server.bodies] == [True] * 3
        server.faults = iter([faulty.error(400, "Bad Request")] * 2)
        with Client(service(server.url, in_flight=1), tmp_path / "c.sqlite") as client:
            client.ask(requests(4))  # one that repeats is the schema's
        schemas = ["response_format" in body for body in server.bodies[3:]]
        assert schemas == [True, True, False, False]


def test_an_answer_that_drips_ends_at_the_time_limit(tmp_path):
    def drips(request):
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        for _ in range(40):
            request.wfile.write(b" ")
            request.wfile.flush()
            time.sleep(0.05)
        request.close_connection = True
        return True

    with LanguageService(echo, iter([drips])) as server:
        start = time.monotonic()
        with Client(service(server.url, timeout=0.3), tmp_path / "c.sqlite") as client:
            assert client.ask(requests(1))[0].value == {"n": 0}
        assert time.monotonic() - start < 1.5


# ------------------------------------------------------------------------------------------ batches


def batched(server, cache, n: int):
    with Client(service(server.url, batch=True), cache) as client:
        return client.ask(requests(n))


def submitted(server, cache, n: int) -> None:
    with pytest.raises(BatchPendingError):
        batched(server, cache, n)
    server.batch_done = True


def test_the_lines_of_a_batch_are_sorted_like_calls(tmp_path):
    filtered = faulty.Refusal(400, openai_error("x", "content_filter"))
    lines = iter([None, filtered, faulty.Refusal(400, openai_error("E5")), None])
    with LanguageService(echo) as server:
        submitted(server, tmp_path / "c.sqlite", 4)
        server.faults = lines
        answers = batched(server, tmp_path / "c.sqlite", 4)
        assert [a.status for a in answers] == ["ok", "refused", "rejected", "ok"]


@pytest.mark.parametrize(
    ("message", "code", "first"), [("E5", None, False), ("no", "insufficient_quota", True)]
)
def test_a_fault_of_the_set_up_in_a_batch_stops_and_keeps_what_was_answered(
    tmp_path, message, code, first
):
    refused = faulty.Refusal(400, openai_error(message, code))
    with LanguageService(echo) as server:
        submitted(server, tmp_path / "c.sqlite", 3)
        server.faults = itertools.chain([None] * first, itertools.repeat(refused))
        with pytest.raises(ServiceError, match=f"batch: 400: {message}; "):
            batched(server, tmp_path / "c.sqlite", 3)
        cached = sqlite3.connect(tmp_path / "c.sqlite").execute("select response from answers")
        assert ["rejected" in row[0] for row in cached] == [False] * first


def test_a_batch_that_fails_as_a_whole_stops_with_the_servers_words(tmp_path):
    with LanguageService(echo) as server:
        submitted(server, tmp_path / "c.sqlite", 2)
        error = {"code": "model_not_found", "message": "The model a-model does not exist"}
        server.batches["batch-0"] |= {"status": "failed", "errors": {"data": [error]}}
        with pytest.raises(ServiceError, match="does not exist; change services.test.model"):
            batched(server, tmp_path / "c.sqlite", 2)
        assert len(server.batches) == 1  # nothing is submitted before the user has changed it


def test_a_job_leaves_the_batch_of_another_job_alone(tmp_path):
    with LanguageService(echo) as server:
        submitted(server, tmp_path / "c.sqlite", 2)
        with (
            Client(service(server.url, batch=True), tmp_path / "c.sqlite") as other,
            pytest.raises(BatchPendingError, match="1 requests submitted"),
        ):
            other.ask(requests(3)[2:])
        assert [answer.value["n"] for answer in batched(server, tmp_path / "c.sqlite", 2)] == [0, 1]
        assert len(server.batches) == 2


def lost(server) -> None:
    """Have the connection break behind the next batch that `server` takes."""
    submit = server.submit

    def take_and_break(request, body):
        server.submit = submit
        with mock.patch.object(faulty, "send", lambda *_: None):
            submit(request, body)
        request.close_connection = True

    server.submit = take_and_break


def test_a_batch_whose_submission_had_no_answer_is_not_paid_twice(tmp_path):
    """The run after it asks the server for the batch with its mark, among those of others."""
    with LanguageService(echo) as server:
        lost(server)
        with pytest.raises(ServiceError, match="no answer from"):
            batched(server, tmp_path / "c.sqlite", 2)
        submitted(server, tmp_path / "other.sqlite", 2)
        assert [answer.value["n"] for answer in batched(server, tmp_path / "c.sqlite", 2)] == [0, 1]
        assert len(server.batches) == 2
        marks = [batch["metadata"][MARK] for batch in server.batches.values()]
        assert len(set(marks)) == 2


def test_a_batch_that_never_arrived_is_submitted_again(tmp_path):
    def breaks(request, body):
        server.submit = submit
        request.close_connection = True

    with LanguageService(echo) as server:
        submit, server.submit = server.submit, breaks
        with pytest.raises(ServiceError, match="no answer from"):
            batched(server, tmp_path / "c.sqlite", 2)
        submitted(server, tmp_path / "c.sqlite", 2)
        assert [answer.value["n"] for answer in batched(server, tmp_path / "c.sqlite", 2)] == [0, 1]
        assert len(server.batches) == 1


def test_a_batch_of_a_server_that_lists_none_is_charged_and_submitted_again(tmp_path, caplog):
    def get(request):
        if "/batches?" in request.path:
            return faulty.send(request, 404, {"error": {"message": "no such page"}})
        return answer(request)

    prices = {"input": 0.0, "output": 2000.0}
    with LanguageService(echo) as server:
        answer, server.get = server.get, get
        options = service(server.url, batch=True, prices=prices, max_tokens=100)
        for number, reason in enumerate([ServiceError, BatchPendingError]):
            if not number:
                lost(server)
            with Client(options, tmp_path / "c.sqlite") as asked, pytest.raises(reason):
                asked.ask(requests(2))
        assert len(server.batches) == 2
        assert asked.cache.unconfirmed("test") == pytest.approx(2 * 100 * 2000 / 2e6)
        assert "the server lists no batches: 2 requests are charged" in caplog.text


def test_a_server_that_cannot_be_asked_gets_no_second_batch(tmp_path):
    with LanguageService(echo) as server:
        lost(server)
        with pytest.raises(ServiceError, match="no answer from"):
            batched(server, tmp_path / "c.sqlite", 2)
        answer = server.get
        server.get = lambda request: faulty.send(request, 500, {"error": {"message": "busy"}})
        with pytest.raises(ServiceError, match="busy"):
            batched(server, tmp_path / "c.sqlite", 2)
        server.get = answer
        assert len(server.batches) == 1
        submitted(server, tmp_path / "c.sqlite", 2)
        assert len(batched(server, tmp_path / "c.sqlite", 2)) == len(server.batches) + 1


@pytest.mark.parametrize("content", [b"<html>busy</html>", b"[]", b'{"data": 3}'])
def test_an_odd_list_of_batches_submits_nothing(tmp_path, content):
    with LanguageService(echo) as server:
        lost(server)
        with pytest.raises(ServiceError, match="no answer from"):
            batched(server, tmp_path / "c.sqlite", 2)
        kind = {"Content-Type": "text/html" if b"<" in content else "application/json"}
        server.get = lambda request: faulty.send_bytes(request, 200, content, kind)
        with pytest.raises(ServiceError, match=r"services\.test: batch: expected .* and got "):
            batched(server, tmp_path / "c.sqlite", 2)
        assert len(server.batches) == 1


@pytest.mark.parametrize(("status", "held"), [(400, False), (502, True), (408, True)])
def test_a_batch_that_is_refused_holds_no_money(tmp_path, status, held):
    """A gateway's error is no refusal: the server behind it may have taken the batch."""
    with LanguageService(echo) as server:
        words = {"error": {"message": "no batches"}}
        server.submit = lambda request, body: faulty.send(request, status, words)
        options = service(server.url, batch=True, prices={"input": 0.0, "output": 2000.0})
        with Client(options, tmp_path / "c.sqlite") as asked:
            with pytest.raises(ServiceError):
                asked.ask(requests(2))
            assert (asked.cache.taken("test") > 0) is held
            assert bool(asked.cache.batches("test")) is held


def spoilt(server, change) -> None:
    """Have the output of the next batch of `server` changed by `change`."""
    finish = server.finish

    def finish_and_spoil(batch):
        finish(batch)
        server.finish = finish
        server.files[batch["output_file_id"]] = change(server.files[batch["output_file_id"]])

    server.finish = finish_and_spoil


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x1e"])
def test_a_line_of_a_batch_ends_at_a_new_line_alone(tmp_path, mark):
    with LanguageService(lambda body: f"{echo(body)} {mark}") as server:
        submitted(server, tmp_path / "c.sqlite", 2)
        rewrite = lambda line: json.dumps(json.loads(line), ensure_ascii=False)  # noqa: E731
        spoilt(server, lambda text: "\n".join(map(rewrite, text.split("\n"))))
        assert [a.status for a in batched(server, tmp_path / "c.sqlite", 2)] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda text: text[:-20], 1),
        (lambda text: text.replace("custom_id", "id"), 2),
        (lambda text: text.replace('"custom_id": "', '"custom_id": "x'), 2),
        (lambda text: "[]\n" + text.split("\n")[1], 1),
    ],
)
def test_lines_of_a_batch_that_cannot_be_read_are_asked_again(tmp_path, caplog, change, lost):
    with LanguageService(echo) as server:
        submitted(server, tmp_path / "c.sqlite", 2)
        spoilt(server, change)
        with pytest.raises(BatchPendingError, match=f"{lost} requests submitted"):
            batched(server, tmp_path / "c.sqlite", 2)
        assert f"{lost} lines cannot be read; {lost} requests" in caplog.text
        assert [a.value["n"] for a in batched(server, tmp_path / "c.sqlite", 2)] == [0, 1]


def test_a_line_that_stands_twice_in_a_batch_is_charged_once(tmp_path):
    with LanguageService(echo) as server:
        options = service(server.url, batch=True, prices=PRICES)
        with Client(options, tmp_path / "c.sqlite") as client:
            with pytest.raises(BatchPendingError):
                client.ask(requests(1))
            server.batch_done = True
            spoilt(server, lambda text: f"{text}\n{text}")
            client.ask(requests(1))
            assert client.cache.spent("test") == pytest.approx((10 + 2 * 5) / 2e6)


@pytest.mark.parametrize("place", ["upload", "submit", "get"])
@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"<html>busy</html>", "text/html", "got 200: a web page.*busy; check services.test.base"),
        (b"{]", "application/json", "JSON, and got 200: "),
        (b"[]", "application/json", "and got 200: "),
    ],
)
def test_an_odd_answer_of_the_batch_api_names_the_service(tmp_path, place, content, kind, words):
    def odd(request, *_):
        faulty.send_bytes(request, 200, content, {"Content-Type": kind})

    with LanguageService(echo) as server:
        if place == "get":
            submitted(server, tmp_path / "c.sqlite", 1)
        usual = getattr(server, place)
        setattr(server, place, odd)
        with pytest.raises(ServiceError, match=rf"services\.test: batch: expected .*{words}"):
            batched(server, tmp_path / "c.sqlite", 1)
        setattr(server, place, usual)
        if place != "get":
            submitted(server, tmp_path / "c.sqlite", 1)
        assert batched(server, tmp_path / "c.sqlite", 1)[0].status == "ok"


def test_a_web_page_in_place_of_a_batchs_output_loses_no_answer(tmp_path):
    with LanguageService(echo) as server:
        submitted(server, tmp_path / "c.sqlite", 2)
        spoilt(server, lambda text: server.files.setdefault("kept", text) and "<html>busy</html>")
        with pytest.raises(ServiceError, match="expected lines of JSON, and got 200: a web page"):
            batched(server, tmp_path / "c.sqlite", 2)
        server.files[server.batches["batch-0"]["output_file_id"]] = server.files["kept"]
        assert [a.status for a in batched(server, tmp_path / "c.sqlite", 2)] == ["ok", "ok"]
        assert len(server.batches) == 1


def test_a_batch_is_asked_again_without_the_schema_that_the_server_refuses(tmp_path):
    refused = faulty.Refusal(400, openai_error("response_format is not supported"))
    with LanguageService(echo) as server:
        submitted(server, tmp_path / "c.sqlite", 2)
        server.faults = iter([refused, refused])
        with pytest.raises(BatchPendingError, match="2 requests submitted"):
            batched(server, tmp_path / "c.sqlite", 2)
        assert "response_format" not in server.files["file-2"]
        assert [a.status for a in batched(server, tmp_path / "c.sqlite", 2)] == ["ok", "ok"]


def test_a_cache_replaces_rejections_alone(tmp_path):
    cache = AnswerCache(tmp_path / "c.sqlite")
    for response in ({"rejected": "400: x"}, {"content": "first"}, {"content": "second"}):
        cache.put("k", {}, response, "s", 0)
    assert cache.get(["k"]) == {"k": {"content": "first"}}
    cache.close()
