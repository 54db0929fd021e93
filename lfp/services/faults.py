"""Failures of a language-model service, sorted in one place.

A server's error ends in one of four ways: the call is made again (`RETRY`); it is recorded for this
request (`REQUEST`) or as a refusal (`REFUSAL`); or it comes from the set-up or the account
(`SETUP`), so that every further request would fail as well, and the job stops. Two more kinds are
no end: `SCHEMA` (the server does not know the schema, and the request is made without it) and
`UNKNOWN` (the words do not say which of a bad request and a bad set-up it is; the client finds out
by a control).

Servers agree on no words. Codes come first, then the field that the server blames, then phrases;
everything that these do not tell is `UNKNOWN` and never recorded on suspicion.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from math import isnan
from time import time
from typing import Any

RETRY, REQUEST, REFUSAL, SETUP = "retry", "this request", "refusal", "set-up"
SCHEMA, UNKNOWN = "schema", "unknown"

#: Codes and types of errors, without case and punctuation.
_REFUSAL_CODES = {
    "contentfilter", "contentpolicyviolation", "responsibleaipolicyviolation",
    "datainspectionfailed", "moderationblocked", "contentmoderation", "promptblocked",
    "sensitivewordsdetected", "safetyviolation", "prohibitedcontent",
}  # fmt: skip
_SETUP_CODES = {
    "insufficientquota", "insufficientbalance", "insufficientfunds", "insufficientcredits",
    "exceededcurrentquotaerror", "billinghardlimitreached", "billingnotactive", "billingerror",
    "paymentrequired", "arrearage", "invalidapikey", "authenticationerror", "permissionerror",
    "accountdeactivated", "accesstermination", "accessterminatederror", "modelnotfound",
    "modelnotavailable", "invalidmodel", "unsupportedmodel", "unsupportedparameter",
    "unsupportedvalue", "unknownparameter", "extraforbidden", "unsupportedcountryregionterritory",
}  # fmt: skip
_REQUEST_CODES = {
    "contextlengthexceeded", "exceedcontextsizeerror", "stringabovemaxlength", "requesttoolarge",
    "prompttoolong",
}  # fmt: skip
_ACCOUNT_CODES = {code for code in _SETUP_CODES if re.search("quota|insuff|billing|arrear", code)}
_RETRY_CODES = {"throttlingexception", "toomanyrequests"}
_SCHEMA_CODES = {"invalidjsonschema", "jsonvalidatefailed"}
_BANNED = re.compile(
    r"\b(account|organi[sz]ation|project)\b.{0,60}"
    r"\b(suspended|deactivated|disabled|terminated|banned|overdue|not active|good standing)",
    re.I | re.S,
)
_REFUSAL_WORDS = re.compile(
    r"blocked by .{0,40}(content|safety|filter)|content management policy|content exists risk"
    r"|(was|were|been|is) flagged|rejected .{0,40}safety system|inappropriate content"
    r"|violat\w+ .{0,60}(polic|guideline)|敏感内容|不安全"
    r"|(refused|rejected|blocked|filtered) .{0,40}content filter",
    re.I | re.S,
)
_SETUP_WORDS = re.compile(
    r"credits?( balance)?( is| are)? too low|insufficient (funds|balance|credits?|quota)"
    r"|(out of|not enough|no|add more) credits?\b|billing|payment required|余额不足|欠费"
    r"|(invalid|incorrect|missing|expired|no) api[ _-]?key|api[ _-]?key.{0,30}(valid|expired)"
    r"|\bmodel\b.{0,120}(not exist|not found|unknown model|no longer available|decommissioned)"
    r"|(unknown|invalid|unsupported) model\b|no such model"
    r"|(unsupported|unknown|unrecogni[sz]ed|unexpected)( request)? (parameter|value|argument|field)"
    r"|(parameter|argument|field)s? .{0,60}(not supported|unsupported|not permitted|not allowed)"
    r"|extra (inputs|fields|parameters) .{0,20}not (permitted|allowed)",
    re.I | re.S,
)
_TOO_LONG = re.compile(
    r"(context|prompt|input|sequence) ?(length|size|window|tokens?|token count)?.{0,60}"
    r"(exceed|too (long|large)|longer than|maximum)"
    r"|(exceed|longer than|maximum|available).{0,40}(context|input|prompt|sequence)"
    r"|too many (input )?tokens|reduce (the|your) (length|prompt|input)"
    r"|(request|payload|body).{0,20}too large",
    re.I | re.S,
)
_CONTEXT = re.compile(r"context (?:length|size|window)\D{0,30}(\d{2,})", re.I)
_SCHEMA_WORDS = re.compile(
    r"response_format|json[ _]?schema|structured[ _]outputs?|guided[ _]|grammar|json[ _]mode", re.I
)
_THROTTLED = re.compile(r"too many requests|wait before trying|throttl", re.I)
_LATER = re.compile(r"(try again|retry)\w*.{0,20}\b(in|after)\b", re.I)
_WEB_PAGE = "a web page, no answer of an API"
#: Keys that hold codes.
_CODED = ("code", "type", "__type", "status", "reason", "error_code", "blockReason")
#: A larger count of tokens is none.
_MOST_TOKENS = 10**9
#: Fields that limit an answer's length.
_LIMITS = ("max_tokens", "max_completion_tokens")
#: Keys of a service by the field of a request that they set.
_KEYS = {
    "temperature": "temperature (null leaves it out)",
    "seed": "seed (null leaves it out)",
    "max_tokens": "max_tokens, or max_tokens_field of the service",
    "max_completion_tokens": "max_tokens, or max_tokens_field of the service",
    "response_format": "response_schema (false asks without a schema)",
}


@dataclass(frozen=True)
class Fault:
    """An error of a server: its `kind`, its `status`, its `words`, its codes.

    `field` is the field of the request that the server blames, `wait` the number of seconds that it
    asks to wait, and `usage` the tokens that it counts.
    """

    kind: str
    status: int
    words: str
    codes: frozenset[str] = frozenset()
    field: str = ""
    wait: float | None = None
    usage: Mapping[str, int] | None = None

    @property
    def of_schema_alone(self) -> bool:
        """Whether the error tells of this answer's form, not of the server's lack of schemas."""
        return "jsonvalidatefailed" in self.codes

    def recorded(self) -> dict[str, Any]:
        """The entry of the cache for a fault of this request, or for a refusal."""
        entry = {"status": self.status, "usage": dict(self.usage or {})}
        name = "refusal" if self.kind == REFUSAL else "rejected"
        return {name: f"{self.status}: {self.words}"[:500], **entry}


def sort_fault(
    status: int,
    content: Any,
    body: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
    clean: Callable[[str], str] = str,
) -> Fault:
    """The fault that a server's answer with `status` and `content` is, to the request `body`.

    Parameters
    ----------
    status, content, headers
        The answer; of the headers only the time to wait counts.
    body
        The request.
    clean
        Takes secrets out of the server's words before they are cut: a cut would leave a part.
    """
    value = _read(content)
    pairs = list(_walk(value))
    if status == 200:  # some gateways send the status in the body alone
        numbers = [item for name, item in pairs if name in ("code", "status")]
        status = next((n for n in numbers if isinstance(n, int) and 400 <= n < 600), status)
    codes = frozenset(
        re.sub(r"[\W_]", "", item).lower()
        for name, item in pairs
        if name in _CODED and isinstance(item, str)
    )
    if any(name == "filtered" and item is True for name, item in pairs):
        codes |= {"contentfilter"}
    words = _words(value, pairs, clean)
    fault = Fault(
        UNKNOWN, status, words, codes, _blamed(pairs, body), _wait(headers or {}, pairs),
        usage_of(dict(pairs).get("usage")),
    )  # fmt: skip
    return replace(fault, kind=_kind(fault, body))


def _kind(fault: Fault, body: Mapping[str, Any]) -> str:
    """The kind of a fault; codes come before the blamed field, and phrases last."""
    status, codes, words = fault.status, fault.codes, fault.words
    wordy = status == 200 or (400 <= status < 500 and status not in (401, 404, 408, 409, 425, 429))
    of_schema = (
        fault.field == "response_format" or codes & _SCHEMA_CODES or _SCHEMA_WORDS.search(words)
    )
    if of_schema and wordy and "response_format" in body:
        return SCHEMA
    if codes & _SETUP_CODES or (wordy and _BANNED.search(words)):
        return SETUP
    # Some gateways pass a filter's error on as one of their own.
    if codes & _REFUSAL_CODES or ((wordy or status == 500) and _REFUSAL_WORDS.search(words)):
        return REFUSAL
    if status == 429:
        later = fault.wait is not None or _LATER.search(words)
        return SETUP if _SETUP_WORDS.search(words) and not later else RETRY
    if status in (408, 409, 425) or status >= 500 or codes & _RETRY_CODES:
        return RETRY
    if status == 400 and _THROTTLED.search(words):
        return RETRY
    if status not in (200, 400, 413, 422) or (fault.field and fault.field not in _LIMITS):
        return SETUP
    if codes & _REQUEST_CODES or status == 413 or _TOO_LONG.search(words):
        return _of_length(fault, body)
    if fault.field or _SETUP_WORDS.search(words):
        return SETUP
    return RETRY if status == 200 else UNKNOWN


def _of_length(fault: Fault, body: Mapping[str, Any]) -> str:
    """The kind of a fault of length: a prompt is too long, or `max_tokens` leaves no room for any.

    Where both can be meant, the control tells them apart.
    """
    context = _CONTEXT.search(fault.words)
    if context and any(body.get(name, 0) >= int(context[1]) for name in _LIMITS):
        return SETUP
    if fault.codes & _REQUEST_CODES:
        return REQUEST
    of_both = fault.field or "ratelimitexceeded" in fault.codes
    return UNKNOWN if of_both or any(name in fault.words for name in _LIMITS) else REQUEST


def remedy(fault: Fault, body: Mapping[str, Any], name: str, key_variable: str | None) -> str:
    """The setting of the service `name` to change, or the other remedy, of a fault of `SETUP`."""
    service, words = f"services.{name}", fault.words
    field = fault.field or _mentioned(words, body)
    of_account = fault.status == 402 or _ACCOUNT_CODES & fault.codes
    if of_account or re.search(r"credit|billing|balance|quota|payment|余额|欠费", words, re.I):
        return (
            "settle it with the vendor (credit, quota, billing), or give the key of another account"
            f" in {key_variable or f'the variable that {service}.api_key_env names'}"
        )
    if fault.status == 401 or re.search(r"api[ _-]?key", words, re.I):
        return _remedy_of_key(service, key_variable)
    if field == "model":
        return f"change {service}.model, or {service}.base_url where another server has it"
    if field:
        return f"change {service}.{_KEYS.get(field, f'extra_body ({field})')}"
    if fault.status == 403:
        return _remedy_of_key(service, key_variable)
    if fault.status in (404, 405) or words.startswith(_WEB_PAGE):
        return (
            f"check {service}.base_url, which ends before /chat/completions, mostly in /v1, and"
            f" {service}.model"
        )
    return (
        f"check {service}: model, base_url, and what every request sends (temperature, seed,"
        " max_tokens, max_tokens_field, response_schema, extra_body)"
    )


def _remedy_of_key(service: str, variable: str | None) -> str:
    if variable is None:
        return f"name the environment variable of the key in {service}.api_key_env"
    return f"check the key in {variable} ({service}.api_key_env)"


def usage_of(value: Any) -> dict[str, int]:
    """The counts of tokens in a server's `usage`; what is no count is left out."""
    if not isinstance(value, Mapping):
        return {}
    return {
        name: value[name]
        for name in ("prompt_tokens", "completion_tokens")
        if type(value.get(name)) is int and 0 <= value[name] <= _MOST_TOKENS
    }


def _wait(headers: Mapping[str, str], pairs: list[tuple[str, Any]]) -> float | None:
    """Seconds that a server asks to wait, by ``Retry-After`` (seconds or a date) or by a field."""
    value = headers.get("retry-after") or str(dict(pairs).get("retryDelay", "")).rstrip("s")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time()
        except (ValueError, TypeError, OverflowError):
            return None
    return None if isnan(seconds) else max(0.0, seconds)


def _read(content: Any) -> Any:
    """The value of a body: JSON where it is some, else its text."""
    if isinstance(content, bytes):
        content = content.decode("utf-8", "replace")
    if not isinstance(content, str):
        return content
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """All keys of a value with what they hold, the inner ones after their outer ones."""
    if isinstance(value, Mapping):
        yield from value.items()
        for name, item in value.items():  # a router's `raw` is the text of the error that it got
            yield from _walk(_read(item) if name == "raw" else item)
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item)


def is_web_page(text: str) -> bool:
    """Whether a body is a web page."""
    return re.match(r"\s*<(!doctype|html|head|body)\b", text, re.I) is not None


def _words(value: Any, pairs: list[tuple[str, Any]], clean: Callable[[str], str]) -> str:
    """The server's words: its message, or all that it sent; of a web page, its text."""
    if isinstance(value, str):
        if is_web_page(value):
            text = re.sub(r"<(script|style)\b.*?</\1>|<[^>]*>", " ", value, flags=re.I | re.S)
            return f"{_WEB_PAGE}: {clean(' '.join(text.split()))[:200]}"
        return clean(" ".join(value.split()))[:500]
    for name in ("message", "msg", "detail", "error", "error_description"):
        texts = [item for key, item in pairs if key == name and isinstance(item, str) and item]
        if texts:
            return clean(" ".join("; ".join(dict.fromkeys(texts)).split()))[:500]
    return clean(json.dumps(value))[:500]


def _blamed(pairs: list[tuple[str, Any]], body: Mapping[str, Any]) -> str:
    """The field of the request, other than its messages, that an error points at."""
    named = [item for key, item in pairs if key == "param" and isinstance(item, str)]
    named += [
        part
        for key, item in pairs
        if key == "loc" and isinstance(item, list)
        for part in item
        if isinstance(part, str)
    ]
    fields = [re.split(r"[.\[]", name.removeprefix("body."))[0] for name in named]
    return next((field for field in fields if field in body and field != "messages"), "")


def _mentioned(words: str, body: Mapping[str, Any]) -> str:
    """The field of the request that the words of an error name; the model, where no other is."""
    fields = [name for name in body if name not in ("messages", "model")]
    for name in (*fields, "model"):
        if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", words, re.I):
            return name
    return ""
