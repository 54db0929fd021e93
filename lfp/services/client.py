"""A client for language-model services.

It asks any OpenAI-compatible ``chat/completions``, keeps the answers in a cache, and stays within a
budget.

A JSON schema is asked for and always checked here, because many servers accept and ignore it
(interpretation study 3.2). The ladder: ask with the schema; where the server refuses it, without;
take the first JSON object of the answer; one request for repair; then the status ``unparsed``,
counted, never a guess. A request ends as an answer in the cache or as an error of the job, which
goes on from the cache when it runs again.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from typing import Any

from jsonschema import Draft202012Validator
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from lfp.reporting.progress import Progress
from lfp.services.answer_cache import AnswerCache, request_key

log = logging.getLogger(__name__)

ENDPOINT = "/chat/completions"
REPAIR = (
    "Your answer is not the JSON object that was asked for ({problem}). Answer again with that JSON"
    " object alone: no explanation, no code fence."
)


class ServiceError(RuntimeError):
    """A service cannot be used; the message says how to go on.

    All answers so far are in the cache.
    """


class BudgetError(ServiceError):
    """A call could exceed the budget."""


class BatchPendingError(ServiceError):
    """A batch is submitted and its answers are not ready."""


class TransientError(RuntimeError):
    """A failure that may go away.

    `wait` is the number of seconds that the server asks for, `billed` tells whether the call may
    cost.
    """

    def __init__(self, message: str, wait: float | None = None, billed: bool = False) -> None:
        super().__init__(message)
        self.wait, self.billed = wait, billed


@dataclass(frozen=True)
class Service:
    """One model of one server, as configured.

    Prices are in US dollars per million tokens, times in seconds.
    """

    name: str
    base_url: str
    model: str
    api_key_env: str | None = None
    temperature: float | None = 0.0
    seed: int | None = 0
    max_tokens: int = 400
    max_tokens_field: str = "max_tokens"
    response_schema: bool = True
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    in_flight: int = 4
    attempts: int = 6
    timeout: float = 120.0
    backoff: float = 0.5
    longest_wait: float = 300.0
    budget_usd: float | None = None
    prices: Mapping[str, Any] | None = None
    offline: bool = False
    batch: bool = False

    def cost(self, input_tokens: float, output_tokens: float) -> float:
        """US dollars of a call; 0 where no prices are configured. Batches cost half."""
        if not self.prices:
            return 0.0
        full = (input_tokens * self.prices["input"] + output_tokens * self.prices["output"]) / 1e6
        return full / 2 if self.batch else full


@dataclass(frozen=True)
class Request:
    """Messages, the schema of the wanted JSON object, and the most tokens of an answer.

    A schema of None allows any text.
    """

    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any] | None = None
    max_tokens: int | None = None


@dataclass(frozen=True)
class Answer:
    """The outcome of a request.

    `status` is ``ok``, ``unparsed``, ``refused`` or ``rejected`` (by the server).
    """

    status: str
    value: Any = None
    text: str = ""
    problem: str = ""


def parse(text: str, schema: Mapping[str, Any]) -> tuple[Any, str]:
    """The first JSON object in `text` that fits `schema`, and the fault where there is none."""
    decoder, problem = json.JSONDecoder(), "no JSON object"
    start = text.find("{")
    while start >= 0:
        try:
            value, _ = decoder.raw_decode(text, start)
        except ValueError:
            problem = "not valid JSON"
        else:
            error = next(iter(Draft202012Validator(schema).iter_errors(value)), None)
            if error is None:
                return value, ""
            problem = error.message[:200]
        start = text.find("{", start + 1)
    return None, problem


def estimated_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """An estimate from above of the tokens of `messages`.

    It is a third of their bytes, and eight for each message.
    """
    return sum(len(message["content"].encode()) // 3 + 8 for message in messages)


class Client:
    """A client of one `service` with the cache file `cache`.

    It is used as a context manager. ``counts`` tells how many requests were called, cached,
    repaired and of which status; ``tokens`` and ``usd`` are the tokens and the cost of this
    client's calls.

    Raises
    ------
    ServiceError
        If the key's environment variable is not set.
    """

    def __init__(self, service: Service, cache: str | Path) -> None:
        from openai import OpenAI

        self.service, self.cache = service, AnswerCache(cache)
        key = os.environ.get(service.api_key_env) if service.api_key_env else "none"
        if not key and not service.offline:
            raise ServiceError(
                f"services.{service.name}: set the environment variable {service.api_key_env} to a"
                f" key"
            )
        self._key = key if service.api_key_env else None
        self._openai = OpenAI(
            base_url=service.base_url, api_key=key or "none", max_retries=0, timeout=service.timeout
        )
        self.counts = {
            "called": 0,
            "cached": 0,
            "repaired": 0,
            "ok": 0,
            "unparsed": 0,
            "refused": 0,
            "rejected": 0,
        }
        self.tokens, self.usd = {"input": 0, "output": 0}, 0.0
        self._guard, self._down = threading.Lock(), threading.Event()
        # Requests are logged here without headers; the lines of the HTTP client add nothing.
        for name in ("openai", "httpx2", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        log.info(
            "service %s (%s): %s, tokens %s, %.4f USD now, %.4f USD in all",
            self.service.name,
            self.service.model,
            self.counts,
            self.tokens,
            self.usd,
            self.cache.spent(self.service.name),
        )
        self._openai.close()
        self.cache.close()

    # --------------------------------------------------------------------------------------- asking

    def ask(self, requests: Sequence[Request], what: str = "requests") -> list[Answer]:
        """Answers to all `requests`, in order; `what` names them in the progress bar.

        Raises
        ------
        ServiceError
            If the service cannot be reached, refuses the key, or lacks an answer while offline.
        BudgetError
            Before a call that could exceed the budget.
        BatchPendingError
            In batch mode, when a batch was submitted or is not ready.
        """
        bodies = [self._body(request) for request in requests]
        responses = self._complete(bodies, what)
        answers = [
            self._answer(request, response)
            for request, response in zip(requests, responses, strict=True)
        ]
        broken = [i for i, answer in enumerate(answers) if answer.status == "unparsed"]
        if broken:
            repairs = [self._repair(bodies[i], answers[i]) for i in broken]
            for i, response in zip(
                broken, self._complete(repairs, f"repairs of {what}"), strict=True
            ):
                answers[i] = self._answer(requests[i], response)
            self.counts["repaired"] += sum(answers[i].status == "ok" for i in broken)
        for answer in answers:
            self.counts[answer.status] += 1
        return answers

    def _body(self, request: Request) -> dict[str, Any]:
        service = self.service
        body: dict[str, Any] = {
            "model": service.model,
            "messages": [dict(m) for m in request.messages],
        }
        body[service.max_tokens_field] = request.max_tokens or service.max_tokens
        body |= {
            k: v
            for k, v in (("temperature", service.temperature), ("seed", service.seed))
            if v is not None
        }
        if request.schema is not None and service.response_schema:
            schema = {"name": "answer", "strict": True, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body | dict(service.extra_body)

    def _repair(self, body: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        messages = [
            *body["messages"],
            {"role": "assistant", "content": answer.text},
            {"role": "user", "content": REPAIR.format(problem=answer.problem)},
        ]
        seed = {"seed": body["seed"] + 1} if "seed" in body else {}
        return {**body, "messages": messages, **seed}

    def _answer(self, request: Request, response: Mapping[str, Any]) -> Answer:
        text = response.get("content") or ""
        if response.get("rejected"):
            return Answer("rejected", problem=response["rejected"])
        if response.get("refusal") or response.get("finish_reason") == "content_filter":
            return Answer("refused", text=response.get("refusal") or text)
        if request.schema is None:
            return (
                Answer("ok", text, text)
                if text.strip()
                else Answer("unparsed", text=text, problem="empty answer")
            )
        value, problem = parse(text, request.schema)
        if value is None and response.get("finish_reason") == "length":
            problem = "cut off at the largest number of tokens"
        return (
            Answer("ok", value, text)
            if value is not None
            else Answer("unparsed", None, text, problem)
        )

    def _complete(self, bodies: Sequence[Mapping[str, Any]], what: str) -> list[dict[str, Any]]:
        """Responses to `bodies`, from the cache or from the service."""
        keys = [request_key(self.service.base_url, ENDPOINT, body) for body in bodies]
        wanted = dict(zip(keys, bodies, strict=True))
        responses = self.cache.get(list(wanted))
        missing = {key: body for key, body in wanted.items() if key not in responses}
        self.counts["cached"] += len(responses)
        if missing:
            self._check(missing, what)
            responses |= (
                self._batch(missing) if self.service.batch else self._call_all(missing, what)
            )
        return [responses[key] for key in keys]

    def _check(self, missing: Mapping[str, Mapping[str, Any]], what: str) -> None:
        """Log the largest cost of the calls; stop where they are not allowed."""
        service = self.service
        if service.offline:
            raise ServiceError(
                f"services.{service.name}: offline, and {len(missing)} {what} are not in"
                f" {self.cache.path}; take offline out of the configuration to ask the service"
            )
        tokens = sum(estimated_tokens(body["messages"]) for body in missing.values())
        most = sum(self._most(body) for body in missing.values())
        log.info(
            "%d %s to ask of %s: about %d tokens in (estimate), at most %.4f USD",
            len(missing),
            what,
            service.name,
            tokens,
            most,
        )
        left = (
            None
            if service.budget_usd is None
            else service.budget_usd - self.cache.spent(service.name)
        )
        if left is not None and most > left + 1e-12:
            raise BudgetError(
                f"services.{service.name}: {len(missing)} {what} of about {tokens} tokens may cost"
                f" {most:.4f} USD, and {max(left, 0):.4f} of budget_usd {service.budget_usd} are"
                " left; raise budget_usd, or ask for less"
            )

    def _most(self, body: Mapping[str, Any]) -> float:
        """The most that a call can cost, US dollars."""
        return self.service.cost(
            estimated_tokens(body["messages"]), body[self.service.max_tokens_field]
        )

    # -------------------------------------------------------------------------------------- calling

    def _call_all(
        self, missing: Mapping[str, Mapping[str, Any]], what: str
    ) -> dict[str, dict[str, Any]]:
        responses, errors = {}, []
        pool = ThreadPoolExecutor(self.service.in_flight)
        try:
            calls = {key: pool.submit(self._call, key, body) for key, body in missing.items()}
            for key, call in Progress(calls.items(), desc=what):
                try:
                    responses[key] = call.result()
                except ServiceError as error:
                    errors.append(error)
        finally:  # an interrupt starts no further request
            pool.shutdown(wait=False, cancel_futures=True)
        if errors:
            budget = [error for error in errors if isinstance(error, BudgetError)]
            raise type(budget[0] if budget else errors[0])(
                f"{(budget or errors)[0]} ({len(errors)} of {len(missing)} {what} have no answer;"
                f" those that have one are in {self.cache.path} and are not asked again)"
            )
        return responses

    def _call(self, key: str, body: Mapping[str, Any]) -> dict[str, Any]:
        with self.cache.asking(key):
            cached = self.cache.get([key])
            if cached:  # another job has asked in the meantime
                return cached[key]
            if self._down.is_set():
                raise ServiceError(
                    f"services.{self.service.name}: given up after a request without an answer"
                )
            return self._retried(key, body)

    def _retried(self, key: str, body: Mapping[str, Any]) -> dict[str, Any]:
        service = self.service
        exponential = wait_random_exponential(multiplier=service.backoff, max=60)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception()
            return error.wait if error.wait is not None else exponential(state)

        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            stop=stop_after_attempt(service.attempts),
            wait=wait,
            reraise=True,
        )
        try:
            return retrying(self._attempt, key, body)
        except TransientError as error:
            self._down.set()
            raise ServiceError(
                f"services.{service.name}: no answer from {service.base_url} in {service.attempts}"
                f" attempts; last: {self._redacted(str(error))}"
            ) from None

    def _attempt(self, key: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make one call and keep its answer.

        Raises TransientError, ServiceError, or BudgetError before it could cost too much.
        """
        service, most = self.service, self._most(body)
        with self.cache.reserved(
            service.name, most, service.budget_usd, 2 * service.timeout
        ) as room:
            if not room:
                self._down.set()
                raise BudgetError(
                    f"services.{service.name}: the next call could exceed budget_usd"
                    f" {service.budget_usd}; raise it, or ask for less"
                )
            return self._kept(key, body, most)

    def _kept(self, key: str, body: Mapping[str, Any], most: float) -> dict[str, Any]:
        try:
            response = self._send(key, body)
        except TransientError as error:
            if error.billed:
                self.cache.charge(self.service.name, key, most)
            log.info("%s: %s", key[:12], self._redacted(str(error)))
            if error.wait is not None and error.wait > self.service.longest_wait:
                raise ServiceError(
                    f"services.{self.service.name}: asks to wait {error.wait:.0f} s, longer than"
                    " longest_wait; run again later"
                ) from None
            raise
        usage = response.get("usage") or {}
        read = usage.get("prompt_tokens", estimated_tokens(body["messages"]))
        written = usage.get("completion_tokens", len(response.get("content") or "") // 3)
        usd = 0.0 if response.get("rejected") else self.service.cost(read, written)
        with self._guard:
            self.counts["called"] += 1
            self.usd += usd
            for name, count in zip(self.tokens, (read, written), strict=True):
                self.tokens[name] += count
        self.cache.put(key, body, response, self.service.name, usd)
        return response

    def _send(self, key: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The response to `body`, without the schema where the server refuses it."""
        import openai

        plain = {name: value for name, value in body.items() if name != "response_format"}
        if self.cache.trait(self._server, "schema") == "refused":
            body = plain
        # Servers that know the header bill a repeated request once; without the schema it is
        # another request.
        headers = {"Idempotency-Key": key if "response_format" in body else f"{key}-plain"}
        try:
            raw = self._openai.chat.completions.with_raw_response.create(
                **{"stream": False, **self._split(body)}, extra_headers=headers
            )
            return _response(raw.http_response.content)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if "response_format" in body:
                response = self._send(key, plain)
                if not response.get("rejected"):
                    self.cache.set_trait(self._server, "schema", "refused")
                return response
            return {"rejected": self._redacted(f"{error.status_code}: {error.message}")[:500]}
        except openai.APIStatusError as error:
            raise self._status_error(error) from None
        except openai.APITimeoutError:
            raise TransientError(
                f"no answer within {self.service.timeout:g} s", billed=True
            ) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            started = type(cause).__name__ not in ("ConnectError", "ConnectTimeout")
            raise TransientError(f"{type(cause).__name__}: {cause}", billed=started) from None

    @property
    def _server(self) -> str:
        return f"{self.service.base_url} {self.service.model}"

    @staticmethod
    def _split(body: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments of the client; fields that it does not know go into ``extra_body``."""
        known = {
            "model",
            "messages",
            "temperature",
            "seed",
            "max_tokens",
            "max_completion_tokens",
            "response_format",
        }
        return {k: v for k, v in body.items() if k in known} | {
            "extra_body": {k: v for k, v in body.items() if k not in known}
        }

    def _status_error(self, error: Any) -> Exception:
        status, name = error.status_code, self.service.name
        if status in (408, 409, 429) or status >= 500:
            return TransientError(
                f"{status}: {error.message}"[:300], _retry_after(error.response.headers)
            )
        advice = {
            401: f"check the key in {self.service.api_key_env}",
            403: f"check the key in {self.service.api_key_env}",
            404: "check base_url and model",
        }.get(status, "check the service's configuration")
        self._down.set()
        return ServiceError(
            f"services.{name}: {self._redacted(f'{status}: {error.message}')[:300]}; {advice}"
        )

    def _redacted(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    # -------------------------------------------------------------------------------------- batches

    def _batch(self, missing: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Collect finished batches into the cache, and submit the requests that no batch holds.

        Raises BatchPendingError until all answers are there.
        """
        import openai

        try:
            return self._collect_and_submit(missing)
        except openai.APIError as error:
            message = self._redacted(f"{type(error).__name__}: {error.message}")[:300]
            raise ServiceError(
                f"services.{self.service.name}: batch: {message}; run the same command again"
            ) from None

    def _collect_and_submit(
        self, missing: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        waiting: set[str] = set()
        for batch, keys in self.cache.batches(self.service.name).items():
            state = self._openai.batches.retrieve(batch)
            if state.status in ("validating", "in_progress", "finalizing", "cancelling"):
                waiting |= set(keys)
                continue
            for file in filter(None, (state.output_file_id, state.error_file_id)):
                self._import(self._openai.files.content(file).text, missing)
            self.cache.drop_batch(batch)
        responses = self.cache.get(list(missing))
        rest = {
            key: body
            for key, body in missing.items()
            if key not in responses and key not in waiting
        }
        if rest:
            lines = [
                json.dumps(
                    {"custom_id": key, "method": "POST", "url": f"/v1{ENDPOINT}", "body": body}
                )
                for key, body in rest.items()
            ]
            content = ("requests.jsonl", "\n".join(lines).encode())
            file = self._openai.files.create(file=content, purpose="batch")
            batch = self._openai.batches.create(
                input_file_id=file.id, endpoint=f"/v1{ENDPOINT}", completion_window="24h"
            )
            self.cache.add_batch(batch.id, self.service.name, list(rest))
        if rest or waiting:
            raise BatchPendingError(
                f"services.{self.service.name}: {len(rest)} requests submitted as a batch,"
                f" {len(waiting)} under way; run the same command again when the batch is done"
            )
        return responses

    def _import(self, lines: str, missing: Mapping[str, Mapping[str, Any]]) -> None:
        """Put the answers of a batch's file into the cache.

        Failed requests are asked again, rejected ones are not.
        """
        for line in filter(str.strip, lines.splitlines()):
            row = json.loads(line)
            result, key = row.get("response") or {}, row["custom_id"]
            body = missing.get(key)
            if body is None:
                continue
            status, content = result.get("status_code"), result.get("body") or {}
            if status == 200:
                try:
                    response = _response(json.dumps(content).encode())
                except TransientError as error:
                    log.info("%s: %s", key[:12], error)
                    continue
            elif status in (400, 413, 422):
                response = {"rejected": f"{status}: {json.dumps(content)[:300]}"}
            else:
                log.info("%s: batch answered %s", key[:12], status)
                continue
            usage = response.get("usage") or {}
            read, written = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
            usd = self.service.cost(read, written)
            self.cache.put(key, body, response, self.service.name, usd)


def configured_client(service: Mapping[str, Any], cache: str | Path) -> Client:
    """A client of `service`, whose limits come from the environment.

    `service` holds the name and all settings that decide answers. Limits (the number of calls at
    once, the budget, the variable of the key and the like) are no settings of a job, so that a
    raised budget reruns nothing: the workflow exports them as JSON by name in ``LFP_SERVICES``.
    """
    limits = json.loads(os.environ.get("LFP_SERVICES", "{}")).get(service["name"], {})
    return Client(Service(**service, **limits), cache)


def _response(content: bytes) -> dict[str, Any]:
    """The parts of a server's answer that are kept.

    Raises TransientError where the answer is no chat completion.
    """
    try:
        value = json.loads(content)
        choice = value["choices"][0]
        message = choice["message"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise TransientError(f"no chat completion: {content[:80]!r}", billed=True) from None
    usage = value.get("usage") or {}
    content = message.get("content")
    if isinstance(content, list):  # parts, as some servers send them
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return {
        "content": content,
        "refusal": message.get("refusal"),
        "finish_reason": choice.get("finish_reason"),
        "model": value.get("model"),
        "system_fingerprint": value.get("system_fingerprint"),
        "usage": {
            name: usage[name] for name in ("prompt_tokens", "completion_tokens") if name in usage
        },
    }


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, from ``Retry-After`` (seconds or a date)."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time())
        except ValueError:
            return None
