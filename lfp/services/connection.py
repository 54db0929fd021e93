"""The connection to a language-model service: one call, and what its answer is.

The key leaves it in the header of a request and nowhere else: answers and errors are without it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import Any

from lfp.reporting.keys import is_secret, key_in, without_keys
from lfp.services import faults
from lfp.services.faults import Fault, sort_fault

#: An answer of more bytes is none.
_LARGEST = 32 * 1024 * 1024


class ServiceError(RuntimeError):
    """A service cannot be used; the message says how to go on.

    All answers so far are in the cache. `billed` tells whether the call may cost, and `refused`
    whether the server refused it, so that it had no effect.
    """

    billed = False
    refused = False


class EndlessAnswerError(ServiceError):
    """An answer has no end within the largest size."""

    billed = True


class TransientError(RuntimeError):
    """A failure that may go away.

    `wait` is the number of seconds that the server asks for, `billed` tells whether the call may
    cost, and `limited` whether the server takes so many calls no more for now.
    """

    def __init__(
        self,
        message: str,
        wait: float | None = None,
        billed: bool = False,
        limited: bool = False,
    ) -> None:
        super().__init__(message)
        self.wait, self.billed, self.limited = wait, billed, limited


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
    max_tokens: int | None = None
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


class Connection:
    """The connection to one `service`; ``openai`` is the client of its protocol.

    Raises
    ------
    ServiceError
        If the key's environment variable is not set, or holds no key.
    """

    def __init__(self, service: Service) -> None:
        from openai import DefaultHttpxClient, OpenAI

        self.service = service
        variable = service.api_key_env
        key = key_in(variable) if variable else "none"
        if not key and not service.offline:
            raise ServiceError(
                f"services.{service.name}: set the environment variable {variable} to a key"
            )
        if not (key.isascii() and key.isprintable()):
            raise ServiceError(
                f"services.{service.name}: the key in {variable} has characters that no header can"
                " carry; it must be one line of ASCII"
            )
        self._key = key if is_secret(key) else None
        self.openai = OpenAI(
            base_url=service.base_url,
            api_key=key or "none",
            max_retries=0,
            timeout=service.timeout,
            http_client=DefaultHttpxClient(event_hooks={"response": [self._bound]}),
        )
        # Requests are logged here without headers; the lines of the HTTP client add nothing.
        for name in ("openai", "httpx2", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)

    def _bound(self, response: Any) -> None:
        """Give the body of an error an end, which the client of the protocol reads as a whole."""
        import httpx2

        if response.status_code < 400:
            return
        stream, bounded = response.stream, self._bounded

        class Bounded(httpx2.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                return bounded(stream, monotonic())

            def close(self) -> None:
                stream.close()

        response.stream = Bounded()

    def _bounded(self, parts: Iterable[bytes], start: float) -> Iterator[bytes]:
        """The `parts` of a body as long as they keep within the largest size and the time limit."""
        size = 0
        for part in parts:
            size += len(part)
            if size > _LARGEST:
                raise self._endless()
            if monotonic() > start + self.service.timeout:
                raise self._too_late()
            yield part

    def close(self) -> None:
        """End the connection."""
        self.openai.close()

    def post(self, key: str, body: Mapping[str, Any]) -> dict[str, Any] | Fault:
        """One call: the kept parts of its answer, or the fault that it is.

        Raises TransientError where the call may be made again.
        """
        import openai

        start = monotonic()
        try:
            with (
                self.connected(),
                self.openai.chat.completions.with_streaming_response.create(
                    **{"stream": False, **self._split(body)}, extra_headers={"Idempotency-Key": key}
                ) as answer,
            ):
                # The client's own limit is for each part of the answer, not for the whole.
                content = b"".join(self._bounded(answer.iter_bytes(), start))
                return self.outcome(answer.status_code, answer.headers, content, body)
        except openai.APIStatusError as error:
            response = error.response
            return self.outcome(error.status_code, response.headers, response.content, body)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Raise TransientError where a connection fails, and ServiceError where none can be."""
        import httpx2
        import openai

        try:
            yield
        except (openai.APITimeoutError, httpx2.TimeoutException):
            raise self._too_late() from None
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            cause = error.__cause__ or error
            kind, words = type(cause).__name__, self.redacted(str(cause))
            if kind in ("UnsupportedProtocol", "LocalProtocolError", "InvalidURL"):
                raise ServiceError(
                    f"services.{self.service.name}: {kind}: {words}; check"
                    f" services.{self.service.name}.base_url"
                ) from None
            started = kind not in ("ConnectError", "ConnectTimeout")
            raise TransientError(f"{kind}: {words}", billed=started) from None

    def _too_late(self) -> TransientError:
        return TransientError(f"no answer within {self.service.timeout:g} s", billed=True)

    def _endless(self) -> EndlessAnswerError:
        name = f"services.{self.service.name}"
        return EndlessAnswerError(
            f"{name}: an answer has more than {_LARGEST // 2**20} MB; check that {name}.base_url is"
            " the address of a language-model service"
        )

    def outcome(
        self, status: int, headers: Mapping[str, str], content: bytes, body: Mapping[str, Any]
    ) -> dict[str, Any] | Fault:
        """What a server's answer is: a completion or a fault, without the key.

        Raises TransientError for a fault that may go away.
        """
        text = decoded(content, headers)
        response = _response(text) if status < 300 else None
        if response is not None:
            return {
                name: self.redacted(item) if isinstance(item, str) else item
                for name, item in response.items()
            }
        fault = self.fault(200 if status < 300 else status, text, body, headers)
        if status < 300 and "text/html" in headers.get("content-type", ""):
            return replace(fault, kind=faults.SETUP)
        if fault.kind == faults.RETRY:
            what = "no chat completion" if fault.status == 200 else fault.status
            raise TransientError(
                f"{what}: {fault.words}"[:300], fault.wait, status < 300, fault.status in (400, 429)
            )
        return fault

    def fault(
        self, status: int, text: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Fault:
        """The fault that a server's answer is, without the key."""
        return sort_fault(status, text, body, headers, partial(self.redacted, echoes=True))

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

    def redacted(self, text: str, echoes: bool = False) -> str:
        """`text` without the key and, of `echoes` in a server's error, without starred parts of it.

        Vendors repeat a wrong key's first and last letters around stars.
        """
        if not self._key:
            return text
        text = without_keys(text, [self._key])
        starred = rf"{re.escape(self._key[:3])}[^\s\"'<>]*\*[^\s\"'<>]*"
        return re.sub(starred, "***", text) if echoes else text


def decoded(content: bytes, headers: Mapping[str, str]) -> str:
    """The text of a body: UTF-8, with or without its mark, else what the header names."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        named = re.search(r"charset=[\"']?([\w.:-]+)", headers.get("content-type", ""), re.I)
    try:
        return content.decode(named[1] if named else "utf-8", "replace")
    except (LookupError, UnicodeError):  # no name of an encoding
        return content.decode("utf-8", "replace")


def _whole(text: str) -> str:
    """`text` without half surrogate pairs, which can be sent to no server again."""
    return text.encode("utf-8", "replace").decode()


def _response(text: str) -> dict[str, Any] | None:
    """The parts of a server's answer that are kept; None where it is no chat completion.

    Reasoning beside the content, in fields or parts of its own, is left out.
    """
    try:
        value = json.loads(text)
        choice = value["choices"][0]
        reason, message = choice.get("finish_reason"), choice.get("message")
        if message is None and reason not in (None, "stop"):
            message = {}  # a filter, or the largest number of tokens, left none
        content, refusal = message.get("content"), message.get("refusal")
        failed = choice.get("error") or reason == "error"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if isinstance(content, list):  # parts, as some servers send them
        parts = [part for part in content if isinstance(part, dict)]
        refusal = refusal or _joined(parts, "refusal", ("refusal",))
        content = _joined(parts, "text", ("text", "output_text", None))
    if failed or not isinstance(content, str | None):
        return None
    return {
        "content": content and _whole(content),
        "refusal": _whole(str(refusal)) if refusal else None,
        "finish_reason": reason if reason is None else _whole(str(reason)),
        **{
            name: _whole(value[name]) if isinstance(value.get(name), str) else None
            for name in ("model", "system_fingerprint")
        },
        "usage": faults.usage_of(value.get("usage")),
    }


def _joined(parts: Sequence[Mapping[str, Any]], field: str, kinds: Sequence[str | None]) -> str:
    return "".join(str(part.get(field) or "") for part in parts if part.get("type") in kinds)
