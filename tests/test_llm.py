"""The client keeps every answer, asks for none twice, and stays within its budget, whatever the
server does.
"""

import itertools
import json
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from lfp.services import answer_cache
from lfp.services.client import (
    Answer,
    BatchPendingError,
    BudgetError,
    Client,
    Request,
    Service,
    ServiceError,
    estimated_tokens,
)
from tests import language_service as faulty
from tests.language_service import LanguageService

SCHEMA = {
    "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
    "additionalProperties": False
}  # fmt: skip
PRICES = {"input": 1.0, "output": 2.0}


def service(url: str, **options) -> Service:
    return Service(
        "test", url, "a-model", **{"backoff": 0.01, "timeout": 1.0, "max_tokens": 50, **options}
    )


def requests(n: int) -> list[Request]:
    return [Request([{"role": "user", "content": f"number {i}"}], SCHEMA) for i in range(n)]


def echo(body: dict) -> str:
    return json.dumps({"n": int(body["messages"][0]["content"].split()[1])})


@pytest.mark.parametrize(
    ("text", "fewest"),
    [("a\n \n  ", 4), ("I{5} do{5} not{5} ", 12), ("he{6}: 3.14159, ", 12),
     ("a plain sentence of words ", 5),
     ("好的电影", 4), ("", 0), ("이 영화는 정말 좋았습니다 ", 29),
     ("Этот фильм был одним из лучших ", 26), ("QWxhZGRpbjpvcGVuIHNlc2FtZQ ", 21),
     ("THE MOVIE WAS EXCELLENT ", 10), ("deadbeefcafebabe1f2e3d ", 13)],
)  # fmt: skip
def test_tokens_are_estimated_rather_too_high(text, fewest):
    """`fewest` are the pieces that no vocabulary of a language model joins, or SmolLM2's."""
    empty = estimated_tokens([{"content": ""}])
    estimate = estimated_tokens([{"content": text * 10}]) - empty
    assert 10 * fewest <= estimate <= len((text * 10).encode())


def test_a_rerun_is_answered_from_the_cache_even_without_a_server(tmp_path):
    with LanguageService(echo) as server:
        with Client(service(server.url), tmp_path / "c.sqlite") as client:
            first = client.ask(requests(5))
        assert [answer.value["n"] for answer in first] == [0, 1, 2, 3, 4]
        assert client.counts["called"] == 5
        assert server.bodies[0]["response_format"]["json_schema"]["schema"] == SCHEMA
    # A copy of the file alone is enough: a cache can be shipped.
    (tmp_path / "shipped.sqlite").write_bytes((tmp_path / "c.sqlite").read_bytes())
    with Client(service(server.url, offline=True), tmp_path / "shipped.sqlite") as client:
        assert client.ask(requests(5)) == first
        assert client.counts["called"] == 0
        with pytest.raises(ServiceError, match="offline, and 1 requests are not in"):
            client.ask(requests(6))


@pytest.mark.parametrize(
    "fault",
    [
        faulty.status(429, Retry_After="0"), faulty.status(500), faulty.status(503),
        faulty.status(408), faulty.status(409), faulty.truncated, faulty.hung(1.5),
        faulty.invalid_json, faulty.empty_choices,
    ],
    ids=["429", "500", "503", "408", "409", "truncated", "hung", "invalid", "empty"],
)  # fmt: skip
def test_every_request_is_answered_once_through_any_fault(tmp_path, fault):
    faults = itertools.chain([None, fault, fault], itertools.repeat(None))
    with (
        LanguageService(echo, faults) as server,
        Client(service(server.url), tmp_path / "c.sqlite") as client,
    ):
        found = client.ask(requests(6))
        assert [answer.value["n"] for answer in found] == list(range(6))
        assert len(server.billed) == 6
        assert set(server.billed.values()) == {1}
        assert len(server.bodies) == 8


def test_a_storm_of_faults_loses_nothing_and_bills_nothing_twice(tmp_path):
    kinds = [
        faulty.status(429, Retry_After="0.05"), faulty.status(500), faulty.truncated,
        faulty.invalid_json,
        faulty.empty_choices, faulty.hung(0.4), None, None, None,
    ]  # fmt: skip
    faults = itertools.chain(itertools.islice(itertools.cycle(kinds), 90), itertools.repeat(None))
    with LanguageService(echo, faults) as server:
        options = service(server.url, in_flight=8, timeout=0.3, attempts=40)
        with Client(options, tmp_path / "c.sqlite") as client:
            found = client.ask(requests(40))
        assert [answer.value["n"] for answer in found] == list(range(40))
        assert set(server.billed.values()) == {1}
        assert len(server.billed) == 40
        assert (
            server.most_in_flight <= 8 + 8
        )  # hung ones are still held by the server when the client gave them up


def test_retry_after_is_honoured_and_a_long_one_ends_the_job(tmp_path):
    from time import monotonic

    with LanguageService(echo, iter([faulty.status(429, Retry_After="1")])) as server:
        with Client(service(server.url), tmp_path / "c.sqlite") as client:
            start = monotonic()
            client.ask(requests(1))
            assert monotonic() - start >= 1
        server.faults = iter([faulty.status(429, Retry_After="500")])
        with (
            Client(service(server.url), tmp_path / "d.sqlite") as client,
            pytest.raises(ServiceError, match="asks to wait 500 s"),
        ):
            client.ask(requests(1))


def test_a_dead_server_is_an_error_and_the_rerun_asks_only_for_the_rest(tmp_path):
    faults = itertools.chain([None] * 3, itertools.repeat(faulty.status(500)))
    with LanguageService(echo, faults) as server:
        options = service(server.url, in_flight=1, attempts=2)
        with (
            Client(options, tmp_path / "c.sqlite") as client,
            pytest.raises(ServiceError, match="5 of 8 requests"),
        ):
            client.ask(requests(8))
        server.faults = itertools.repeat(None)
        before = len(server.bodies)
        with Client(options, tmp_path / "c.sqlite") as client:
            assert len(client.ask(requests(8))) == 8
        assert len(server.bodies) - before == 5
        assert set(server.billed.values()) == {1}


def test_invalid_answers_are_repaired_once_or_counted(tmp_path):
    def reply(body):
        repair = len(body["messages"]) > 1
        number = int(body["messages"][0]["content"].split()[1])
        if number == 0:
            return 'Sure! ```json\n{"n": 0}\n```'
        if number == 1:
            return '{"n": 1}' if repair else '{"n": "one"}'
        return "I would rather not say"

    with (
        LanguageService(reply) as server,
        Client(service(server.url), tmp_path / "c.sqlite") as client,
    ):
        found = client.ask(requests(3))
        assert [answer.status for answer in found] == ["ok", "ok", "unparsed"]
        assert [answer.value for answer in found[:2]] == [{"n": 0}, {"n": 1}]
        assert client.counts["repaired"] == 1
        assert client.counts["unparsed"] == 1
        assert server.bodies[-1]["seed"] == 1
        assert len(server.bodies) == 5


def test_a_server_that_refuses_schemas_is_asked_without_them_from_then_on(tmp_path):
    faults = itertools.chain([faulty.refuses_schemas], itertools.repeat(None))
    with LanguageService(echo, faults) as server:
        with Client(service(server.url, in_flight=1), tmp_path / "c.sqlite") as client:
            client.ask(requests(3))
        assert ["response_format" in body for body in server.bodies] == [True, False, False, False]


def test_a_request_that_the_server_rejects_is_recorded_and_not_asked_again(tmp_path):
    too_long = faulty.error(400, "maximum context length is 128 tokens", "context_length_exceeded")
    with LanguageService(echo, itertools.repeat(too_long)) as server:
        for _ in range(2):
            with Client(service(server.url), tmp_path / "c.sqlite") as client:
                [answer] = client.ask(requests(1))
            assert answer.status == "rejected"
            assert "400" in answer.problem
        assert len(server.bodies) == 1


def test_an_answer_in_parts_is_put_together(tmp_path):
    def parts(request):
        message = {
            "role": "assistant",
            "content": [{"type": "text", "text": '{"n"'}, {"type": "text", "text": ": 3}"}],
        }
        faulty.send(
            request,
            200,
            faulty.completion("", choices=[{"finish_reason": "stop", "message": message}]),
        )
        return True

    with (
        LanguageService(echo, iter([parts])) as server,
        Client(service(server.url), tmp_path / "c.sqlite") as client,
    ):
        assert client.ask(requests(1))[0].value == {"n": 3}


def test_a_refusal_is_a_status(tmp_path):
    with LanguageService(echo) as server:
        server.reply = lambda body: None

        def refused(request):
            message = {"role": "assistant", "content": None, "refusal": "I cannot"}
            faulty.send(
                request,
                200,
                faulty.completion("", choices=[{"finish_reason": "stop", "message": message}]),
            )
            return True

        server.faults = iter([refused])
        with Client(service(server.url), tmp_path / "c.sqlite") as client:
            assert client.ask(requests(1))[0] == Answer("refused", text="I cannot")


def test_the_budget_stops_before_the_first_call_and_before_it_is_exceeded(tmp_path):
    with LanguageService(echo) as server:
        options = service(server.url, prices=PRICES, budget_usd=0.001, in_flight=1)
        one = Client(options, tmp_path / "c.sqlite")
        assert one._most(one._body(requests(1)[0])) == pytest.approx((11 + 2 * 50) / 1e6, rel=0.1)
        with one as client, pytest.raises(BudgetError, match="raise budget_usd"):
            client.ask(requests(200))
        assert not server.bodies
        # Repeated faults that may have been billed count against it.
        server.faults = itertools.repeat(faulty.invalid_json)
        budget = replace(options, budget_usd=0.0003, attempts=10)
        with (
            Client(budget, tmp_path / "d.sqlite") as client,
            pytest.raises(BudgetError, match="could exceed"),
        ):
            client.ask(requests(1))
        assert len(server.bodies) == 2
        server.faults = iter(())
        with Client(options, tmp_path / "e.sqlite") as client:
            client.ask(requests(4))
            assert client.cache.spent("test") == pytest.approx(4 * (10 * 1 + 5 * 2) / 1e6)


def interrupted(cache, key: str, usd: float) -> None:
    """What a job leaves that ends in the middle of a call."""
    with (
        pytest.raises(KeyboardInterrupt),
        cache.asking(key),
        cache.reserved("test", key, usd, None),
    ):
        raise KeyboardInterrupt


def test_calls_of_a_killed_job_are_charged_and_the_next_job_says_so(tmp_path):
    cache = answer_cache.AnswerCache(tmp_path / "c.sqlite")
    with cache.asking("ab" * 32), cache.reserved("test", "ab" * 32, 0.3, 1.0) as room:
        assert room
        assert cache.settle("test") == 0  # a call under way is none of a killed job
        assert cache.taken("test") == 0.3
        cache.put("ab" * 32, {}, {"content": "x"}, "test", 0.1)
    assert cache.taken("test") == pytest.approx(0.1)
    interrupted(cache, "cd" * 32, 0.3)
    with LanguageService(echo) as server:
        options = service(server.url, prices=PRICES, budget_usd=0.4)
        with (
            Client(options, cache.path) as client,
            pytest.raises(BudgetError, match=r"0\.3000 are charged .* may have been billed"),
        ):
            client.ask(requests(1))
        assert cache.unconfirmed("test") == 0.3
        with Client(replace(options, budget_usd=1), cache.path) as client:
            assert client.ask(requests(1))[0].status == "ok"
    interrupted(cache, "cd" * 32, 0.2)
    with cache.asking("cd" * 32), cache.reserved("test", "cd" * 32, 0.1, 1.0):
        assert cache.unconfirmed("test") == 0.5  # one for the same request as well
    cache.close()


def test_a_cache_of_an_earlier_release_goes_on(tmp_path):
    with closing(sqlite3.connect(tmp_path / "c.sqlite")) as database, database:
        database.execute("create table reservations (id integer primary key, service text,"
                         " usd real, expires real)")  # fmt: skip
        database.execute("insert into reservations values (1, 'test', 0.2, 0)")
        database.execute("create table batches (id text primary key, service, keys, created)")
        database.execute("insert into batches values ('b', 'test', '[]', '')")
    cache = answer_cache.AnswerCache(tmp_path / "c.sqlite")
    assert cache.batches("test") == {"b": []}
    assert cache.settle("test") == 0.2
    assert cache.settle("test") == 0
    assert cache.taken("test") == 0.2
    cache.close()


def test_an_interrupt_ends_the_waits_between_attempts(tmp_path, monkeypatch):
    before = set(threading.enumerate())

    def interrupt(*_, **__):
        while not server.bodies:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr("lfp.services.client.Progress", interrupt)
    with LanguageService(echo, itertools.repeat(faulty.status(429, Retry_After="30"))) as server:
        with (
            Client(service(server.url), tmp_path / "c.sqlite") as client,
            pytest.raises(KeyboardInterrupt),
        ):
            client.ask(requests(1))
        workers = [t for t in set(threading.enumerate()) - before if "PoolExecutor" in t.name]
        for worker in workers:
            worker.join(5)
        assert not any(worker.is_alive() for worker in workers)


def test_a_wait_for_the_request_of_another_job_can_be_given_up(tmp_path):
    cache = answer_cache.AnswerCache(tmp_path / "c.sqlite")

    def give_up():
        raise ServiceError

    with (
        cache.asking("ab" * 32),
        pytest.raises(ServiceError),
        cache.asking("ab" * 32, give_up),
    ):
        pass


def test_the_key_is_sent_and_never_kept(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TEST_KEY", "sk-verysecret1")
    caplog.set_level("DEBUG")
    with LanguageService(echo) as server:
        options = service(server.url, api_key_env="TEST_KEY")
        with Client(options, tmp_path / "c.sqlite") as client:
            client.ask(requests(1))
        assert server.headers[0]["Authorization"] == "Bearer sk-verysecret1"

        def leaks(request):
            faulty.send(request, 401, {"error": {"message": "bad key sk-verysecret1"}})
            return True

        server.faults = iter([leaks])
        with (
            Client(options, tmp_path / "d.sqlite") as client,
            pytest.raises(ServiceError, match="check the key in TEST_KEY") as error,
        ):
            client.ask(requests(1))
    assert "sk-verysecret1" not in str(error.value)
    assert all(b"sk-verysecret1" not in path.read_bytes() for path in tmp_path.iterdir())
    assert "sk-verysecret1" not in "\n".join(
        r.getMessage() for r in caplog.records if r.name.startswith("workflow")
    )
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(ServiceError, match="set the environment variable TEST_KEY"):
        Client(options, tmp_path / "c.sqlite")


def test_concurrent_jobs_ask_for_a_shared_request_once(tmp_path):
    code = (
        "import sys; from tests.test_llm import requests, service; from lfp.services.client import"
        " Client\n"
        "with Client(service(sys.argv[1], in_flight=4), sys.argv[2]) as c:"
        " print(len(c.ask(requests(30))))"
    )
    with LanguageService(echo) as server:
        command = [sys.executable, "-c", code, server.url, str(tmp_path / "c.sqlite")]
        root = Path(__file__).parent.parent
        jobs = [
            subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(3)
        ]
        assert [job.communicate(timeout=120)[0].strip() for job in jobs] == ["30"] * 3
        assert len(server.bodies) == 30


def test_a_lock_dies_with_its_holder(tmp_path):
    code = (
        "import sys, time; from lfp.services.answer_cache import AnswerCache\n"
        "with AnswerCache(sys.argv[1]).asking('ab' * 32): print('held', flush=True); time.sleep(60)"
    )
    root = Path(__file__).parent.parent
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "c.sqlite")],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline().strip() == "held"
    cache = answer_cache.AnswerCache(tmp_path / "c.sqlite")
    entered = threading.Event()

    def enter():
        with cache.asking("ab" * 32):
            entered.set()

    waiting = threading.Thread(target=enter, daemon=True)
    waiting.start()
    assert not entered.wait(0.3)
    holder.kill()
    holder.wait()
    assert entered.wait(10)
    waiting.join()


def test_a_batch_is_submitted_collected_and_its_failures_asked_again(tmp_path):
    with LanguageService(echo) as server:
        options = service(server.url, batch=True)

        def run():
            with Client(options, tmp_path / "c.sqlite") as client:
                return client.ask(requests(4))

        with pytest.raises(BatchPendingError, match="4 requests submitted"):
            run()
        with pytest.raises(BatchPendingError, match="0 requests submitted as a batch, 4 under way"):
            run()
        server.batch_done, server.faults = True, iter([object()])  # one line of the batch fails
        with pytest.raises(BatchPendingError, match="1 requests submitted"):
            run()
        assert [answer.value["n"] for answer in run()] == [0, 1, 2, 3]
        assert len(server.batches) == 2
        assert set(server.billed.values()) == {1}
        assert not server.bodies


def test_a_batch_that_the_server_refuses_is_an_error_without_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-verysecret1")
    with LanguageService(echo) as server:

        def refuses(request, raw):
            faulty.send(request, 400, {"error": {"message": "no batches for sk-verysecret1"}})

        server.upload = refuses
        options = service(server.url, batch=True, api_key_env="TEST_KEY")
        with (
            Client(options, tmp_path / "c.sqlite") as client,
            pytest.raises(
                ServiceError, match=r"batch: 400: no batches for \*\*\*; check services.test"
            ) as error,
        ):
            client.ask(requests(1))
    assert "sk-verysecret1" not in str(error.value)


def test_a_batch_counts_against_the_budget_until_it_is_collected(tmp_path):
    with LanguageService(echo) as server:
        options = service(
            server.url, batch=True, prices={"input": 0.0, "output": 2000.0}, budget_usd=0.06
        )

        def run(i):
            with Client(options, tmp_path / "c.sqlite") as client:
                return client.ask(requests(2)[i : i + 1]), client.cache.taken("test")

        with pytest.raises(BatchPendingError):
            run(0)
        with pytest.raises(BudgetError, match=r"0\.0100 of budget_usd 0\.06 are left"):
            run(1)
        server.batch_done = True
        assert run(0)[1] == pytest.approx(5 * 2000 / 2e6)  # what it has cost
        with pytest.raises(BatchPendingError):
            run(1)


def test_two_jobs_submit_a_shared_request_once(tmp_path):
    with LanguageService(echo) as server:
        upload = server.upload
        server.upload = lambda request, raw: (time.sleep(0.1), upload(request, raw))[1]

        def run():
            with (
                Client(service(server.url, batch=True), tmp_path / "c.sqlite") as client,
                pytest.raises(BatchPendingError),
            ):
                client.ask(requests(3))

        jobs = [threading.Thread(target=run) for _ in range(2)]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        assert len(server.batches) == 1


def test_failures_of_a_caches_file_say_what_to_do(tmp_path, monkeypatch):
    cache = answer_cache.AnswerCache(tmp_path / "c.sqlite")
    fill = "insert into traits values ('s', 'n', zeroblob(1000000))"
    for pragma, remedy in (
        ("max_page_count = 1", "its disk is full. Make room"),
        ("query_only = 1", "cannot be written. Make both writable, or set offline: true"),
    ):
        with pytest.raises(answer_cache.CacheError, match=remedy), cache._reading() as database:
            database.execute(f"pragma {pragma}")
            database.execute(fill)
    monkeypatch.setattr(answer_cache, "_PATIENCE", 0)
    with (
        cache._writing(),
        pytest.raises(answer_cache.CacheError, match="has locked it for 0 seconds. End that"),
    ):
        cache.charge("s", "k", 1.0)
    with pytest.raises(answer_cache.CacheError, match="cannot be written"), cache._explained():
        raise PermissionError(13, "Permission denied")
    cache.close()


def test_a_shipped_cache_is_read_in_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    with (
        LanguageService(echo) as server,
        Client(service(server.url), tmp_path / "c.sqlite") as client,
    ):
        answers = client.ask(requests(2))
    (tmp_path / "shipped").mkdir()
    shipped = tmp_path / "shipped" / "c.sqlite"
    shipped.write_bytes((tmp_path / "c.sqlite").read_bytes())
    monkeypatch.setattr("os.access", lambda *_: False)  # permissions do not bind a superuser
    with Client(service(server.url, offline=True), shipped) as client:
        assert client.ask(requests(2)) == answers
        with pytest.raises(answer_cache.CacheError, match="cannot be written"):
            client.cache.charge("test", "k", 1.0)
        assert [path.name for path in shipped.parent.iterdir()] == ["c.sqlite"]


def test_a_damaged_cache_is_named(tmp_path):
    path = tmp_path / "c.sqlite"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(answer_cache.CacheError, match=r"c.sqlite: .*Restore a copy"):
        answer_cache.AnswerCache(path)


def test_the_cache_is_an_ordinary_database_without_headers(tmp_path):
    with (
        LanguageService(echo) as server,
        Client(service(server.url), tmp_path / "c.sqlite") as client,
    ):
        client.ask(requests(1))
    [(request, response)] = sqlite3.connect(tmp_path / "c.sqlite").execute(
        "select request, response from answers"
    )
    assert json.loads(request)["model"] == "a-model"
    kept = json.loads(response)
    assert kept["model"] == "served-model"
    assert kept["usage"] == {"prompt_tokens": 10, "completion_tokens": 5}
    assert "Authorization" not in request + response
    assert (tmp_path / "c.sqlite").stat().st_size > 0
