"""The answer in a language model's text: the JSON object behind its reasoning, or a refusal.

Nothing is guessed. Text within a block of reasoning is no answer, an object within another object's
fields is none, an object that stands in the prompt is the prompt's example, and of several objects
that differ none is taken.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

from lfp.files.canonical import canonical_json

#: Phrases of refusals in English.
REFUSAL = re.compile(
    r"\b(i (?:can(?:'|no|’| no)t|cannot|won(?:'|’)t|will not|refuse to|must (?:\w+ )?decline"
    r"|do(?: no|n(?:'|’))t feel comfortable)"
    r"|i(?:(?:'|’)m| am) (?:sorry,? but|not able|unable|not comfortable)|i apologi[sz]e,? but)",
    re.I,
)
_TAG = (
    r"\s*(?:\w+:)?(?:inner_)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis"
    r"|scratchpad|monologue)(?:_\w+)?"
)
#: Marks around reasoning: tags, and the channels and tokens of models whose server leaves them in.
_OPEN = rf"<\|?{_TAG}\b[^<>/]*>|\[THINK\]|◁think▷|<\|begin_of_thought\|>" + (
    r"|<\|channel\|>\s*(?:analysis|commentary)|\Aanalysis(?=[A-Z])"
    r"|<\|START_THINKING\|>|<\|channel>\s*thought\b|<unused94>"
)
_CLOSE = rf"<\|?/{_TAG}\s*\|?>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>" + (
    r"|<\|channel\|>\s*final\b|assistantfinal(?=\W)"
    r"|<\|END_THINKING\|>|<channel\|>|<unused95>"
)
_END = re.compile(_CLOSE, re.I)
_MARK = re.compile(rf"(?P<open>{_OPEN})|(?P<close>{_CLOSE})|\{{", re.I)
#: A brace and a key: an object, if only a broken one.
_KEYED = re.compile(r"\{\s*[\"'\w]+\s*:")
_NESTING = re.compile(r'"(?:[^"\\]|\\.)*"|[{}]', re.S)


@dataclass(frozen=True)
class Text:
    """What follows the reasoning of an answer: its text, its JSON objects, and why it has none."""

    visible: str
    objects: tuple[Any, ...]
    problem: str

    @property
    def refuses(self) -> bool:
        """Whether the text is a refusal in plain words instead of an object."""
        return "{" not in self.visible and REFUSAL.search(self.visible[:200]) is not None

    @property
    def begins_with_an_object(self) -> bool:
        """Whether nothing but a fence stands before the first object.

        Of a text that was cut off, an object behind other words may be a draft: some chat templates
        open the block of reasoning, and its end is what was cut off.
        """
        return re.match(r"\s*(```\w*\s*)?\{", self.visible) is not None


def behind_reasoning(text: str) -> Text:
    """What follows the reasoning in `text`.

    Marks within a JSON object are the object's. Text before a mark of an end is reasoning even
    where no mark began it, and a block without an end leaves no answer.
    """
    objects: list[Any] = []
    start, position, problem = 0, 0, "no JSON object"
    while match := _MARK.search(text, position):
        position = match.end()
        if match["open"]:
            end = _END.search(text, position)
            if end is None:
                return Text("", (), "reasoning without an end")
            position = end.start()
        elif match["close"]:
            objects, start, problem = [], position, "no JSON object"
        else:
            try:
                value, position = _DECODER.raw_decode(text, match.start())
                objects.append(value)
            except (ValueError, RecursionError):
                problem = "not valid JSON"
                if _KEYED.match(text, match.start()):
                    position = _end_of_object(text, match.start())
    return Text(text[start:], tuple(objects), problem)


def parse(
    text: Text, schema: Mapping[str, Any], prompt: Sequence[Mapping[str, str]] = ()
) -> tuple[Any, str]:
    """The JSON object of an answer that fits `schema`, and the fault where there is none.

    An object that a message of the `prompt` holds is the prompt's example and no answer.
    """
    validator = Draft202012Validator(schema)
    problems: list[str] = []
    fitting = _fitting(text.objects, validator, problems)
    if not fitting:
        return None, problems[-1] if problems else text.problem
    for message in prompt:
        for example in _fitting(behind_reasoning(message["content"]).objects, validator, []):
            fitting.pop(example, None)
    if not fitting:
        return None, "the example of the prompt"
    if len(fitting) > 1:
        return None, "several JSON objects that differ"
    return next(iter(fitting.values())), ""


def _fitting(
    objects: Sequence[Any], validator: Draft202012Validator, problems: list[str]
) -> dict[str, Any]:
    """The objects that fit a schema, by their canonical text; others' faults go to `problems`.

    An object around one other, ``{"result": {...}}``, stands for that one.
    """
    fitting = {}
    for value in objects:
        inner = list(value.values())
        error = next(validator.iter_errors(value), None)
        if error is not None and len(inner) == 1 and isinstance(inner[0], Mapping):
            value = inner[0]
            error = next(validator.iter_errors(value), None)
        if error is not None:
            problems.append(error.message[:200])
        elif not _is_unicode(value):
            problems.append("not valid Unicode")
        else:
            fitting[canonical_json(value)] = value
    return fitting


def _is_unicode(value: Any) -> bool:
    """Whether all text of `value` can be written; half a surrogate pair cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _end_of_object(text: str, start: int) -> int:
    """The end of a broken object that begins at `start`; the text's where it is not closed."""
    depth = 0
    for match in _NESTING.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0 and match.group() == "}":
            return match.end()
    return len(text)


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice")
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits} is no number of JSON")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_without_duplicates, parse_float=_finite, parse_constant=_finite
)
