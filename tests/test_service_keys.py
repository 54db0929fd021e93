"""Every key of a service changes the requests or the client's behaviour: a key without a proof here
fails.
"""

import dataclasses
import itertools
import json
import time

import pytest

from lfp.configuration import ConfigurationError, checked
from lfp.grid import SERVICE_IDENTITY
from lfp.services.client import (
    BatchPendingError,
    BudgetError,
    Request,
    ServiceError,
    configured_client,
)
from lfp.settings import Service
from tests import language_service as faulty
from tests.language_service import LanguageService
from tests.test_configuration import changed
from tests.test_llm import PRICES, SCHEMA, echo

REQUESTS = [Request([{"role": "user", "content": f"number {i}"}], SCHEMA, 20) for i in range(4)]
ALWAYS = itertools.repeat


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """A function that asks a server as a job does, with `keys` of its service, and returns the
    server and the answers, or the error.
    """
    fresh = (tmp_path / f"{i}.sqlite" for i in itertools.count())

    def asking(fault=None, cache=None, reply=echo, **keys):
        with LanguageService(reply, ALWAYS(fault)) as server:
            entry = {"base_url": server.url, "model": "m", **keys}
            values = Service(**entry).as_json()
            identity = {"name": "s"} | {key: values.pop(key) for key in SERVICE_IDENTITY}
            monkeypatch.setenv("LFP_SERVICES", json.dumps({"s": values}))
            try:
                with configured_client(identity, cache or next(fresh)) as client:
                    outcome = client.ask(REQUESTS)
                    server.usd = client.cache.spent("s")
            except ServiceError as error:
                outcome = error
        return server, outcome

    return asking


def sent(ask, **keys) -> dict:
    """The first request that a service with `keys` gets."""
    return ask(**keys)[0].bodies[0]


def base_url(ask, _):
    server, outcome = ask(base_url="http://127.0.0.1:9/v1", attempts=1)
    assert not server.bodies
    assert "services.s.base_url" in str(outcome)


def model(ask, _):
    assert sent(ask, model="another")["model"] == "another"


def temperature(ask, _):
    assert sent(ask)["temperature"] == 0
    assert sent(ask, temperature=0.7)["temperature"] == 0.7
    assert "temperature" not in sent(ask, temperature=None)


def seed(ask, _):
    assert sent(ask, seed=5)["seed"] == 5
    assert "seed" not in sent(ask, seed=None)


def max_tokens(ask, _):
    assert sent(ask)["max_tokens"] == 20  # the prompt's
    assert sent(ask, max_tokens=4000)["max_tokens"] == 4000
    assert sent(ask, max_tokens=7)["max_tokens"] == 7


def max_tokens_field(ask, _):
    body = sent(ask, max_tokens_field="max_completion_tokens", max_tokens=9)
    assert body["max_completion_tokens"] == 9
    assert "max_tokens" not in body


def response_schema(ask, _):
    assert "response_format" in sent(ask)
    assert "response_format" not in sent(ask, response_schema=False)


def extra_body(ask, _):
    assert sent(ask, extra_body={"top_k": 5, "reasoning": {"effort": "low"}})["top_k"] == 5


def api_key_env(ask, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "a-secret")
    assert ask(api_key_env="SOME_KEY")[0].headers[0]["Authorization"] == "Bearer a-secret"


def in_flight(ask, _):
    def slow(body):
        time.sleep(0.05)
        return echo(body)

    assert ask(in_flight=1, reply=slow)[0].most_in_flight == 1
    assert ask(in_flight=4, reply=slow)[0].most_in_flight > 1


def attempts(ask, _):
    for number in (1, 3):
        server, _ = ask(faulty.status(500), attempts=number, in_flight=1, backoff=0.001)
        assert len(server.bodies) == number


def timeout(ask, _):
    _, outcome = ask(faulty.hung(0.3), timeout=0.1, attempts=1)
    assert "no answer within 0.1 s" in str(outcome)
    assert isinstance(ask(faulty.hung(0.3), timeout=0.1, attempts=1)[1], ServiceError)


def backoff(ask, monkeypatch):
    waits = []
    monkeypatch.setattr("lfp.services.client.sleep_using_event", lambda event: waits.append)
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    ask(faulty.status(500), backoff=0.25, attempts=4, in_flight=1)
    assert waits == [0.25, 0.5, 1]
    # The server's wait makes none shorter.
    for wait, expected in (("0", 0.25), ("nan", 0.25), ("-5", 0.25), ("7", 7)):
        waits.clear()
        ask(faulty.status(429, Retry_After=wait), backoff=0.25, attempts=2, in_flight=1)
        assert waits == [expected]


def longest_wait(ask, _):
    _, outcome = ask(faulty.status(429, Retry_After="0.2"), longest_wait=0.1)
    assert "longer than longest_wait" in str(outcome)
    _, outcome = ask(faulty.status(429, Retry_After="0.01"), longest_wait=0.1, attempts=2)
    assert "in 2 attempts" in str(outcome)


def budget_usd(ask, _):
    server, outcome = ask(budget_usd=1e-9, prices=PRICES)
    assert isinstance(outcome, BudgetError)
    assert not server.bodies


def prices(ask, _):
    assert ask(prices=PRICES)[0].usd == pytest.approx(4 * (10 + 2 * 5) / 1e6)
    assert ask()[0].usd == 0


def offline(ask, _):
    server, outcome = ask(offline=True)
    assert "offline" in str(outcome)
    assert not server.bodies


def batch(ask, _):
    server, outcome = ask(batch=True)
    assert isinstance(outcome, BatchPendingError)
    assert server.batches
    assert not server.bodies


PROOFS = {
    proof.__name__: proof
    for proof in (
        base_url, model, temperature, seed, max_tokens, max_tokens_field, response_schema,
        extra_body, api_key_env, in_flight, attempts, timeout, backoff, longest_wait, budget_usd,
        prices, offline, batch,
    )
}  # fmt: skip


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Service)])
def test_every_key_of_a_service_works(ask, key, monkeypatch):
    PROOFS[key](ask, monkeypatch)


@pytest.mark.parametrize(
    "change",
    [
        *({"extra_body": {field: 1}} for field in ("messages", "max_tokens", "stream", "n")),
        {"base_url": "https://user:secret@host/v1"},
        {"base_url": "https://host/v1?key=secret"},
        {"api_key_env": "sk-a-key-itself"},
        {"max_tokens": 0},
    ],
)
def test_a_value_that_would_not_work_is_refused_by_name(change):
    entry = {"base_url": "http://h/v1", "model": "m", **change}
    with pytest.raises(ConfigurationError, match=rf"services\.s\.{next(iter(change))}"):
        checked(changed(services__s=entry))
