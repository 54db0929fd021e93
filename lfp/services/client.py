"""A client for language-model services.

It asks any OpenAI-compatible ``chat/completions``, keeps the answers in a cache, and stays within a
budget.

A JSON schema is asked for and always checked here, because many servers accept and ignore it
(interpretation study 3.2). The ladder: ask with the schema; where the server refuses it, without;
take the JSON object that follows the reasoning (:mod:`lfp.services.answers`); one request for
repair; then the status ``unparsed``, counted, never a guess. A request ends as an answer in the
cache or as an error of the job, which goes on from the cache when it runs again. What a server's
error means is decided in :mod:`lfp.services.faults`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_random_exponential,
)

from lfp.reporting.progress import Progress
from lfp.services import faults
from lfp.services.answer_cache import AnswerCache, request_key
from lfp.services.answers import behind_reasoning, parse
from lfp.services.connection import (
    Connection,
    Service,
    ServiceError,
    TransientError,
    decoded,
)
from lfp.services.faults import Fault, is_web_page, remedy, sort_fault

log = logging.getLogger(__name__)

ENDPOINT = "/chat/completions"
REPAIR = (
    "Your answer is not the JSON object that was asked for ({problem}). Answer again with that JSON"
    " object alone: no explanation, no code fence."
)
#: The name under which a batch says which submission it is of, and the largest number of batches,
#: newest first, that are looked through for it.
MARK, LISTED = "lfp_submission", 1000
#: The beginning of the name that a batch has in the cache until the server has told its own.
_SUBMITTED = "submission "
#: Errors of a server that lists no batches.
_NO_LIST = (404, 405, 501)
#: The text of the messages of a control (:meth:`Client._by_control`).
CONTROL = "Say 1"
_CUT_OFF = "cut off at the largest number of tokens"
#: Values of ``finish_reason`` of an answer that a filter stopped.
_FILTERED = ("content_filter", "safety", "sensitive", "prohibited_content", "refusal")


class BudgetError(ServiceError):
    """A call could exceed the budget."""


class BatchPendingError(ServiceError):
    """A batch is submitted and its answers are not ready."""


@dataclass(frozen=True)
class Request:
    """Messages, the schema of the wanted JSON object, and the most tokens of an answer.

    A schema of None allows any text; ``max_tokens`` of the service comes before that of a request.
    """

    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 400


@dataclass(frozen=True)
class Answer:
    """The outcome of a request.

    `status` is ``ok``, ``unparsed``, ``refused`` or ``rejected`` (by the server).
    """

    status: str
    value: Any = None
    text: str = ""
    problem: str = ""


#: Runs of plain letters and digits, runs of several spaces, and single characters of other kinds.
_RUNS = re.compile(r"[A-Za-z0-9]+| {2,}|[^ ]")


def estimated_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """An estimate of the tokens of `messages`, rather too high.

    Every begun three letters of a word count as one, every begun two of a word in capitals, every
    character of digits, digests and the like, and every byte of other letters and marks. Runs of
    spaces count as one, and every message as eight. Vocabularies of language models hold longer
    pieces of English words, and hardly longer ones of anything else.
    """
    return sum(
        8 + sum(_pieces(match) for match in _RUNS.finditer(message["content"]))
        for message in messages
    )


def _pieces(run: re.Match[str]) -> int:
    text, size = run.group(), len(run.group().encode())
    if text[0] == " ":
        return 1
    if not text.isascii() or not text.isalpha():
        return size
    word = text[1:].islower() or size == 1
    return -(-size // 3) if word else -(-size // 2) if text.isupper() else size


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
        self.service, self.cache = service, AnswerCache(cache, service.offline)
        self.connection = Connection(service)
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
        self._controlling = threading.Lock()
        self._reason: ServiceError | None = None

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
        self.connection.close()
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
                repaired = self._answer(requests[i], response)
                if repaired.status != "rejected":  # the repair was, not the request
                    answers[i] = repaired
            self.counts["repaired"] += sum(answers[i].status == "ok" for i in broken)
        for answer in answers:
            self.counts[answer.status] += 1
        return self._advised(answers, what)

    def _advised(self, answers: Sequence[Answer], what: str) -> list[Answer]:
        """`answers`; those that were cut off name the setting, and the log says what failed."""
        for status in ("rejected", "refused"):
            failed = [answer for answer in answers if answer.status == status]
            if failed:
                words = (failed[0].problem or failed[0].text)[:200]
                number = f"{len(failed)} of {len(answers)} {what}"
                log.warning("%s were %s; the first: %s", number, status, words)
        advice = f"raise services.{self.service.name}.max_tokens"
        cut = sum(answer.problem == _CUT_OFF for answer in answers)
        if cut:
            log.warning("%d of %d %s were %s; %s", cut, len(answers), what, _CUT_OFF, advice)
        return [
            replace(answer, problem=f"{_CUT_OFF}; {advice}")
            if answer.problem == _CUT_OFF
            else answer
            for answer in answers
        ]

    def _body(self, request: Request) -> dict[str, Any]:
        service = self.service
        body: dict[str, Any] = {
            "model": service.model,
            "messages": [dict(m) for m in request.messages],
        }
        body[service.max_tokens_field] = service.max_tokens or request.max_tokens
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
            # Servers refuse an empty message.
            {"role": "assistant", "content": answer.text if answer.text.strip() else "(nothing)"},
            {"role": "user", "content": REPAIR.format(problem=answer.problem)},
        ]
        seed = {"seed": body["seed"] + 1} if "seed" in body else {}
        return {**body, "messages": messages, **seed}

    def _answer(self, request: Request, response: Mapping[str, Any]) -> Answer:
        content, reason = response.get("content") or "", response.get("finish_reason")
        if response.get("rejected"):
            return Answer("rejected", problem=response["rejected"])
        if response.get("refusal") or (reason or "").lower().startswith(_FILTERED):
            return Answer("refused", text=response.get("refusal") or content)
        text = behind_reasoning(content)
        if request.schema is None:
            value, problem = text.visible if text.visible.strip() else None, "empty answer"
        else:
            value, problem = parse(text, request.schema, request.messages)
            if value is None and text.refuses:
                return Answer("refused", text=content)
            if reason == "length" and not text.begins_with_an_object:
                value = None
        if value is not None:
            return Answer("ok", value, content)
        return Answer("unparsed", None, content, _CUT_OFF if reason == "length" else problem)

    def _complete(self, bodies: Sequence[Mapping[str, Any]], what: str) -> list[dict[str, Any]]:
        """Responses to `bodies`, from the cache or from the service."""
        keys = [request_key(self.service.base_url, ENDPOINT, body) for body in bodies]
        wanted = dict(zip(keys, bodies, strict=True))
        responses = self._known(list(wanted))
        missing = {key: body for key, body in wanted.items() if key not in responses}
        self.counts["cached"] += len(responses)
        if missing and self.service.offline:
            name = f"services.{self.service.name}"
            raise ServiceError(
                f"{name}: offline, and {len(missing)} {what} are not in {self.cache.path}; take"
                " offline out of the configuration to ask the service"
            )
        if missing:
            ask = self._batch if self.service.batch else self._call_all
            responses |= ask(missing, what)
        return [responses[key] for key in keys]

    def _known(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The cached responses to `keys`.

        Rejections without a status are from a release that recorded every error 400 for its
        request. Those whose words do not say that it was the request are asked for again.
        """
        responses = self.cache.get(keys)
        for key, response in list(responses.items()):
            if "rejected" in response and "status" not in response:
                status, _, words = response["rejected"].partition(": ")
                fault = sort_fault(int(status) if status.isdigit() else 400, words, {})
                if fault.kind in (faults.REQUEST, faults.REFUSAL):
                    responses[key] = fault.recorded()
                else:
                    del responses[key]
        return responses

    def _check(self, missing: Mapping[str, Mapping[str, Any]], what: str) -> None:
        """Log the largest cost of the calls; stop where they are not allowed."""
        service = self.service
        killed = self.cache.settle(service.name)
        if killed:
            log.warning("%.4f USD are charged for calls under way in killed jobs", killed)
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
            else service.budget_usd - self.cache.taken(service.name)
        )
        if left is not None and most > left + 1e-12:
            raise BudgetError(
                f"services.{service.name}: {len(missing)} {what} of about {tokens} tokens may cost"
                f" {most:.4f} USD, and {max(left, 0):.4f} of budget_usd {service.budget_usd} are"
                f" left{self._unconfirmed()}; raise budget_usd, or ask for less"
            )

    def _unconfirmed(self) -> str:
        """The part of an error that says what was charged though no answer came."""
        usd = self.cache.unconfirmed(self.service.name)
        without = f" ({usd:.4f} are charged for calls that failed after they were sent, or whose"
        return f"{without} job was killed: they may have been billed)" if usd else ""

    def _most(self, body: Mapping[str, Any]) -> float:
        """The most that a call can cost, US dollars."""
        return self.service.cost(
            estimated_tokens(body["messages"]), body[self.service.max_tokens_field]
        )

    # -------------------------------------------------------------------------------------- calling

    def _call_all(
        self, missing: Mapping[str, Mapping[str, Any]], what: str
    ) -> dict[str, dict[str, Any]]:
        self._check(missing, what)
        responses, errors = {}, []
        pool = ThreadPoolExecutor(self.service.in_flight)
        try:
            calls = {key: pool.submit(self._call, key, body) for key, body in missing.items()}
            for key, call in Progress(calls.items(), desc=what):
                try:
                    responses[key] = call.result()
                except ServiceError as error:
                    errors.append(error)
        except BaseException:  # an interrupt ends the waits between attempts
            self._down.set()
            raise
        finally:  # and starts no further request
            pool.shutdown(wait=False, cancel_futures=True)
        if errors:
            reason = self._reason or errors[0]
            raise type(reason)(
                f"{reason} ({len(errors)} of {len(missing)} {what} have no answer;"
                f" those that have one are in {self.cache.path} and are not asked again)"
            )
        return responses

    def _call(self, key: str, body: Mapping[str, Any]) -> dict[str, Any]:
        with self.cache.asking(key, self._go_on):
            cached = self._known([key])
            if cached:  # another job has asked in the meantime
                return cached[key]
            try:
                return self._retried(partial(self._attempt, key, body))
            except ServiceError as error:
                raise self._stopped(error) from None

    def _stopped(self, error: ServiceError) -> ServiceError:
        """`error`, after which no further request starts."""
        with self._guard:
            self._reason = self._reason or error
        self._down.set()
        return error

    def _go_on(self) -> None:
        """Raise ServiceError where a request has ended the job."""
        if self._down.is_set():
            raise ServiceError(
                f"services.{self.service.name}: given up after a request without an answer"
            )

    def _retried(self, call: Callable[[], Any], twice: bool = True) -> Any:
        """The result of `call`, which is repeated while its failures may go away.

        With `twice` false a call that may have had its effect is not repeated.
        """
        service = self.service
        exponential = wait_random_exponential(multiplier=service.backoff, max=60)

        def wait(state: RetryCallState) -> float:
            return max(state.outcome.exception().wait or 0.0, exponential(state))

        def goes_on(error: BaseException) -> bool:
            return (
                isinstance(error, TransientError)
                and (twice or not error.billed)
                and (error.wait or 0) <= service.longest_wait
            )

        retrying = Retrying(
            retry=retry_if_exception(goes_on),
            stop=stop_after_attempt(service.attempts) | stop_when_event_set(self._down),
            wait=wait,
            sleep=sleep_using_event(self._down),
            reraise=True,
        )
        try:
            return retrying(call)
        except TransientError as error:
            self._go_on()
            if (error.wait or 0) > service.longest_wait:
                raise ServiceError(
                    f"services.{service.name}: asks to wait {error.wait:.0f} s, longer than"
                    f" longest_wait; run again later ({error})"
                ) from None
            attempts = service.attempts if twice or not error.billed else 1
            advice = (
                f"lower services.{service.name}.in_flight, raise backoff or attempts, or wait for"
                " the vendor's limit to pass"
                if error.limited
                else f"see that the server runs and that services.{service.name}.base_url is its"
                " address"
            )
            raise ServiceError(
                f"services.{service.name}: no answer from {service.base_url} in {attempts}"
                f" attempts; last: {error}; {advice}, and run again"
            ) from None

    def _attempt(self, key: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make one call and keep its answer.

        Raises TransientError, ServiceError, or BudgetError before it could cost too much.
        """
        self._go_on()
        service, most = self.service, self._most(body)
        with self.cache.reserved(service.name, key, most, service.budget_usd) as room:
            if not room:
                raise BudgetError(
                    f"services.{service.name}: the next call could exceed budget_usd"
                    f" {service.budget_usd}{self._unconfirmed()}; raise it, or ask for less"
                )
            return self._kept(key, body, most)

    def _kept(self, key: str, body: Mapping[str, Any], most: float) -> dict[str, Any]:
        try:
            response = self._send(key, body)
        except (TransientError, ServiceError) as error:
            if error.billed:
                self.cache.charge(self.service.name, key, most)
            log.info("%s: %s", key[:12], error)
            raise
        with self._guard:
            self.counts["called"] += 1
        self.cache.put(key, body, response, self.service.name, self._cost(body, response))
        return response

    def _cost(self, body: Mapping[str, Any], response: Mapping[str, Any]) -> float:
        """US dollars of a call, which are counted with its tokens.

        An answer without counts is estimated; an error costs what it says, mostly nothing.
        """
        usage, failed = response.get("usage") or {}, "status" in response
        text = response.get("content") or ""
        read = usage.get(
            "prompt_tokens", 0 if failed else estimated_tokens(body.get("messages", ()))
        )
        written = usage.get(
            "completion_tokens", 0 if failed else estimated_tokens([{"content": text}])
        )
        usd = self.service.cost(read, written)
        with self._guard:
            self.usd += usd
            for name, count in zip(self.tokens, (read, written), strict=True):
                self.tokens[name] += count
        return usd

    def _send(self, key: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The response to `body`, without the schema where the server refuses it."""
        body = self._form(body)
        # Servers that know the header bill a repeated request once; without the schema it is
        # another request.
        with_schema = "response_format" in body
        outcome = self.connection.post(key if with_schema else f"{key}-plain", body)
        if with_schema and isinstance(outcome, Fault) and outcome.kind == faults.UNKNOWN:
            # The words do not tell, and the trouble may be one of a moment: only what repeats can
            # be the schema's.
            outcome = self.connection.post(key, body)
        if (
            isinstance(outcome, Fault)
            and outcome.kind in (faults.SCHEMA, faults.UNKNOWN)
            and with_schema
        ):
            of_schema, body = outcome, _plain(body)
            outcome = self.connection.post(f"{key}-plain", body)
            if not isinstance(outcome, Fault) and not of_schema.of_schema_alone:
                self._without_schema(of_schema)
        if isinstance(outcome, Fault) and outcome.kind in (faults.SCHEMA, faults.UNKNOWN):
            outcome = self._by_control(key, body, outcome)
        if not isinstance(outcome, Fault):
            return outcome
        if outcome.kind == faults.SETUP:
            raise self._set_up(outcome, body)
        return outcome.recorded()

    def _form(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """`body` as the server takes it: without the schema where it is known to refuse that."""
        return _plain(body) if self.cache.trait(self._server, "schema") == "refused" else body

    def _without_schema(self, fault: Fault) -> None:
        """Remember that the server refuses schemas; answers are checked here anyway."""
        log.warning("%s: asked without a schema from now on: %s", self.service.name, fault.words)
        self.cache.set_trait(self._server, "schema", "refused")

    def _by_control(self, key: str, body: Mapping[str, Any], fault: Fault) -> Fault:
        """`fault`, whose words do not tell its cause, as one of this request or of the set-up.

        The control is the same request with a short text that no server can object to. Where it
        fails as well, the set-up is at fault.
        """
        with self._controlling:
            self._go_on()
            messages = [{**message, "content": CONTROL} for message in body["messages"]]
            outcome = self.connection.post(f"{key}-control", {**body, "messages": messages})
            if isinstance(outcome, Fault):
                raise self._set_up(replace(fault, kind=faults.SETUP), body)
            usd = self._cost({"messages": messages}, outcome)
            self.cache.charge(self.service.name, f"{key}-control", usd)
        return replace(fault, kind=faults.REQUEST)

    def _set_up(self, fault: Fault, body: Mapping[str, Any], prefix: str = "") -> ServiceError:
        """The error that stops the job: the server's words and the setting to change."""
        service = self.service
        advice = remedy(fault, body, service.name, service.api_key_env)
        return self._stopped(
            ServiceError(
                f"services.{service.name}: {prefix}{fault.status}: {fault.words[:300]}; {advice}"
            )
        )

    @property
    def _server(self) -> str:
        return f"{self.service.base_url} {self.service.model}"

    # -------------------------------------------------------------------------------------- batches

    def _batch(self, missing: Mapping[str, Mapping[str, Any]], what: str) -> dict[str, Any]:
        """Collect finished batches into the cache, and submit the requests that no batch holds.

        One job at a time does so: what another one has submitted meanwhile counts as under way.
        Raises BatchPendingError until all answers are there.
        """
        with self.cache.collecting():
            waiting: set[str] = set()
            for batch, keys in self.cache.batches(self.service.name).items():
                if missing.keys().isdisjoint(keys):  # another job's, which collects it
                    continue
                arrived = self._arrived(batch, [missing[key] for key in keys if key in missing])
                if arrived and not self._collected(arrived, keys, missing):
                    waiting |= set(keys)
            responses = self._known(list(missing))
            rest = {
                key: body
                for key, body in missing.items()
                if key not in responses and key not in waiting
            }
            if rest:
                self._submit(rest, what)
        if rest or waiting:
            raise BatchPendingError(
                f"services.{self.service.name}: {len(rest)} requests submitted as a batch,"
                f" {len(waiting)} under way; run the same command again when the batch is done"
            )
        return responses

    def _arrived(self, batch: str, bodies: Sequence[Mapping[str, Any]]) -> str | None:
        """The server's name of a `batch` of the cache; None where it has no such one.

        Where the answer to a submission was lost, or its job was killed, the server is asked for
        the batch with its mark. One that lists none may have taken it: then the requests `bodies`
        are charged as if they were answered.
        """
        import openai

        if not batch.startswith(_SUBMITTED):
            return batch
        mark = batch.removeprefix(_SUBMITTED)

        def marked() -> list[str] | None:
            try:
                listed = self.connection.openai.batches.list(limit=100)
                if not isinstance(listed.data, list):
                    raise ValueError("no list of batches")
                newest = islice(listed, LISTED)
                return [one.id for one in newest if (one.metadata or {}).get(MARK) == mark]
            except AttributeError as error:  # of the client, which takes any JSON for a page
                raise ValueError("no list of batches") from error
            except openai.APIStatusError as error:
                if error.status_code in _NO_LIST:
                    return None
                raise

        names = self._batch_api(marked, None)
        if names:
            log.info("batch %s is the one whose submission had no answer", names[0])
            self.cache.rename_batch(batch, names[0])
            return names[0]
        if names is None:
            log.warning(
                "the server lists no batches: %d requests are charged as if it had taken the one"
                " whose submission had no answer, and submitted again", len(bodies),
            )  # fmt: skip
            self.cache.charge(self.service.name, batch, sum(map(self._most, bodies)))
        self.cache.drop_batch(batch)
        return None

    def _collected(
        self, batch: str, keys: Sequence[str], missing: Mapping[str, Mapping[str, Any]]
    ) -> bool:
        """Put the answers of a batch with the requests `keys` into the cache, if it is done."""
        retrieve = partial(self.connection.openai.batches.retrieve, batch)
        state = self._batch_api(retrieve, "status")
        if state.status in ("validating", "in_progress", "finalizing", "cancelling"):
            return False
        lines, unread = self._lines(
            [file for file in (state.output_file_id, state.error_file_id) if file]
        )
        rows = {key: row for key, row in lines.items() if key in keys}
        unread += len(lines) - len(rows)
        if unread:
            lost = [missing[key] for key in keys if key in missing and key not in rows]
            log.warning(
                "batch %s: %d lines cannot be read; %d requests without a line are charged as if"
                " they were answered, and asked again", batch, unread, len(lost),
            )  # fmt: skip
            self.cache.charge(self.service.name, batch, sum(map(self._most, lost)))
        stop = self._import(rows, missing)
        self.cache.drop_batch(batch)
        if state.status == "failed":
            errors = [error.to_dict() for error in getattr(state.errors, "data", None) or ()]
            fault = self.connection.outcome(400, {}, json.dumps(errors).encode(), {})
            stop = self._set_up(fault, {}, "batch: ")
        if stop is not None:
            raise stop
        return True

    def _lines(self, files: Sequence[str]) -> tuple[dict[str, Mapping[str, Any]], int]:
        """The lines of `files` by their request, and the number of those that cannot be read."""
        rows: dict[str, Mapping[str, Any]] = {}
        unread = 0
        for file in files:
            read = partial(self.connection.openai.files.content, file)
            text = decoded(self._batch_api(read, None).content, {})
            if is_web_page(text):
                raise self._odd_answer(text, "lines of JSON")
            # Within a JSON text other separators of lines may stand.
            for line in filter(str.strip, text.split("\n")):
                try:
                    row = json.loads(line)
                    rows.setdefault(row["custom_id"] + "", row)
                except (ValueError, LookupError, TypeError, RecursionError):
                    unread += 1
        return rows, unread

    def _submit(self, bodies: Mapping[str, Mapping[str, Any]], what: str) -> None:
        """Submit requests as a batch, and remember it with the most that it can cost.

        It is remembered before, by a mark that the batch carries, for its answer may be lost.
        """
        self._check(bodies, what)
        lines = [
            json.dumps(
                {
                    "custom_id": key,
                    "method": "POST",
                    "url": f"/v1{ENDPOINT}",
                    "body": self._form(body),
                }
            )
            for key, body in bodies.items()
        ]
        content = ("requests.jsonl", "\n".join(lines).encode())
        upload = partial(self.connection.openai.files.create, file=content, purpose="batch")
        mark = uuid4().hex
        create = partial(
            self.connection.openai.batches.create,
            input_file_id=self._batch_api(upload, "id").id,
            endpoint=f"/v1{ENDPOINT}",
            completion_window="24h",
            metadata={MARK: mark},
        )
        most = sum(self._most(body) for body in bodies.values())
        self.cache.add_batch(f"{_SUBMITTED}{mark}", self.service.name, list(bodies), most)
        try:
            # A second batch would be paid as well.
            batch = self._batch_api(create, "id", twice=False)
        except ServiceError as error:
            if error.refused:
                self.cache.drop_batch(f"{_SUBMITTED}{mark}")
            raise
        self.cache.rename_batch(f"{_SUBMITTED}{mark}", batch.id)

    def _batch_api(self, call: Callable[[], Any], part: str | None, twice: bool = True) -> Any:
        """The result of a call of the batch API, which has the `part` that is wanted of it, if any.

        Its errors are sorted like those of requests.
        """
        import openai

        def attempt() -> Any:
            try:
                with self.connection.connected():
                    return call()
            except openai.APIStatusError as error:
                status, answer = error.status_code, error.response
                fault = self.connection.outcome(status, answer.headers, answer.content, {})
                refusal = self._set_up(fault, {}, "batch: ")
                # Behind these a gateway may have lost the answer of a server that took the batch.
                refusal.refused = status < 500 and status != 408
                raise refusal from None
            except ValueError as error:  # of the client, which reads JSON
                raise self._odd_answer(str(error), "JSON") from None

        answer = self._retried(attempt, twice)
        if part is not None and not getattr(answer, part, None):
            raise self._odd_answer(answer, f"an object with {part}")
        return answer

    def _odd_answer(self, answer: Any, wanted: str) -> ServiceError:
        """The error for an `answer` of the batch API that is not what was `wanted` of it."""
        text = answer if isinstance(answer, str) else repr(answer)
        fault = self.connection.fault(200, text, {}, {})
        return self._set_up(fault, {}, f"batch: expected {wanted}, and got ")

    def _import(
        self, rows: Mapping[str, Mapping[str, Any]], missing: Mapping[str, Mapping[str, Any]]
    ) -> ServiceError | None:
        """Put the answers of a finished batch into the cache.

        Requests whose failure may go away are asked again, and so are those whose schema the server
        refuses; where no line is answered, an unknown error is one of the set-up. The error that
        stops the job, after everything else is kept, is returned.
        """
        failed: dict[str, Fault] = {}
        for key, row in rows.items():
            body = missing.get(key, {})  # without a body: another job's, whose answer is kept
            result = row.get("response")
            result = result if isinstance(result, Mapping) else {}
            status, content = result.get("status_code"), result.get("body") or row
            status = status if isinstance(status, int) else 500
            try:
                outcome = self.connection.outcome(status, {}, json.dumps(content).encode(), body)
            except TransientError as error:
                log.info("%s: batch: %s", key[:12], error)
                continue
            if isinstance(outcome, Fault):
                failed[key] = outcome
            else:
                self._put(key, body, outcome)
        answered = len(failed) < len(rows)
        stop, schemas = None, []
        for key, fault in failed.items():
            body = missing.get(key, {})
            if fault.kind == faults.SCHEMA:
                schemas.append(fault)
            elif fault.kind == faults.SETUP or (fault.kind == faults.UNKNOWN and not answered):
                stop = stop or self._set_up(fault, body, "batch: ")
            elif body:
                self._put(key, body, fault.recorded())
        if schemas:
            self._without_schema(schemas[0])
        return stop

    def _put(self, key: str, body: Mapping[str, Any], response: Mapping[str, Any]) -> None:
        self.cache.put(key, body, response, self.service.name, self._cost(body, response))


def configured_client(service: Mapping[str, Any], cache: str | Path) -> Client:
    """A client of `service`, whose limits come from the environment.

    `service` holds the name and all settings that decide answers. Limits (the number of calls at
    once, the budget, the variable of the key and the like) are no settings of a job, so that a
    raised budget reruns nothing: the workflow exports them as JSON by name in ``LFP_SERVICES``.
    """
    limits = json.loads(os.environ.get("LFP_SERVICES", "{}")).get(service["name"], {})
    return Client(Service(**service, **limits), cache)


def _plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """A request without the schema of its answer."""
    return {name: value for name, value in body.items() if name != "response_format"}
