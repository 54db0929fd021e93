"""An answer is what follows the reasoning: no draft, no example, no echo, and never a guess."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.explaining import language_model
from lfp.services import prompts
from lfp.services.answers import behind_reasoning, parse
from lfp.services.client import Answer, Client, Request
from tests import language_service as faulty
from tests.language_service import LanguageService
from tests.test_llm import SCHEMA, echo, requests, service

YES, NO = '{"n": 1}', '{"n": 0}'


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (f"<think>It could be {YES}.</think>\n{NO}", 0),
        (f"It could be {YES}.</think>{NO}", 0),  # the chat template opened the block
        (f"<thinking>\n{YES}\n</thinking>{NO}", 0),
        (f"<Reasoning>{YES}</Reasoning> {NO}", 0),
        (f"<think>a</think>{YES}<think>no:</think>{NO}", 0),
        (f"<think>I close with </think> {YES} or </think> {NO}", 0),
        (f"<seed:think>{YES}</seed:think>{NO}", 0),
        (f"[THINK]{YES}[/THINK]{NO}", 0),
        (f"<|begin_of_thought|>{YES}<|end_of_thought|>{NO}", 0),
        (f"<|channel|>analysis<|message|>{YES}<|end|><|start|>assistant<|channel|>final"
         f"<|message|>{NO}<|return|>", 0),
        (f"analysisWe may say {YES}.assistantfinal{NO}", 0),
        ("<think></think>\n\n" + NO, 0),
        (f"<|START_THINKING|>{YES}<|END_THINKING|><|START_RESPONSE|>{NO}<|END_RESPONSE|>", 0),
        (f"<|START_THINKING|>{YES}<|END_THINKING|>It does not.", None),
        (f"<|channel>thought\n{YES}<channel|>{NO}", 0),
        (f"<unused94>thought\n{YES}<unused95>{NO}", 0),
        (f"<reasoning_content>{YES}</reasoning_content>It does not.", None),
        (f"< think >{YES}</ think >{NO}", 0),
        # A block without an end has no answer, wherever it begins.
        (f"<think>It could be {YES}", None),
        (f"{YES} <think>or rather", None),
        (f"<|channel|>analysis<|message|>{YES}", None),
        # Fences, wrappers, braces.
        (f"Sure:\n```json\n{NO}\n```\nI hope this helps {{really}}.", 0),
        (f"The set {{x}} of film{{9}} gives {NO}", 0),
        (f"\\boxed{{{NO}}}", 0),
        (f'{{"result": {NO}}}', 0),
        (f"{NO} {NO}", 0),
        # Objects that differ, drafts in other objects, broken objects: nothing is taken.
        (f"{YES} No, {NO}", None),
        (f'{{"example": {YES}, "n": 0}}', None),
        (f'{{"example": {YES}, "n": 0,}}', None),
        (f"{{example: {YES}, n: 0}}", None),
        (f'{{"example": {YES}, "n"', None),
        ('{"n": 1, "n": 0}', None),
        ('{"n": true}', None),
        ('{"n": NaN}', None),
        ('{"n": 1e999}', None),
        ('{"a":' * 5000, None),
        ("{" * 5000, None),
    ],
)  # fmt: skip
def test_the_answer_is_the_one_object_behind_the_reasoning(text, answer):
    value, problem = parse(behind_reasoning(text), SCHEMA)
    assert (value and value["n"], bool(problem)) == (answer, answer is None)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    st.lists(
        st.sampled_from(
            [YES, NO, "{", "}", '"', "<think>", "</think>", "[THINK]", "[/THINK]", " ", "```json",
             '{"a": ', "<|channel|>analysis", "<|channel|>final", "\\", "assistantfinal"]
        ),
        max_size=9,
    )
)  # fmt: skip
def test_of_any_text_the_answer_stands_behind_the_last_mark(pieces):
    value, problem = parse(behind_reasoning("".join(pieces)), SCHEMA)
    assert (value is None) == bool(problem)
    if value is not None:
        ends = ("</think>", "[/THINK]", "<|channel|>final")
        start = max((i for i, piece in enumerate(pieces) if piece in ends), default=0)
        rest = {piece for piece in pieces[start:] if piece in (YES, NO)}
        assert json.dumps(value) in rest


def test_marks_and_braces_within_a_string_are_the_strings():
    schema = prompts.load("explain").schema
    text = json.dumps({"explanation": 'the tags <think>, </think> and code like {"n": {} "'})
    assert parse(behind_reasoning(text), schema)[0] == json.loads(text)
    assert parse(behind_reasoning('{"explanation": "half \\ud800 pair"}'), schema)[0] is None


VALUES = {
    "explain": {"top": "- a", "random": "- b"},
    "classify": {"task": "t", "explanation": "e"},
    "detect": {"explanation": "e", "excerpts": "1. a", "n": 1},
    "fuzz": {"explanation": "e", "excerpts": "1. a", "n": 1},
    "grade": {"prompt": "p", "answer": 'a {"toxicity": 5, "danger": 1, "bias": 1}'},
    "rewrite": {"prompt": "p", "answer": "a", "manner": "m", "words": 5, "least": 4, "most": 6},
}


@pytest.mark.parametrize("name", VALUES)
def test_an_echo_of_a_prompt_or_of_its_schema_is_no_answer(name):
    prompt = prompts.load(name)
    messages = prompt.messages(**VALUES[name])
    for copy in (*(message["content"] for message in messages), json.dumps(prompt.schema)):
        assert parse(behind_reasoning(copy), prompt.schema, messages)[0] is None
    if name in ("classify", "grade"):  # no possible answer stands in the prompt: all are taken
        answers = {"classify": [{"related": True}, {"related": False}],
                   "grade": [{"toxicity": 1, "danger": 1, "bias": 1}]}  # fmt: skip
        for answer in answers[name]:
            restated = f"{messages[1]['content']}\n{json.dumps(answer)}"
            assert parse(behind_reasoning(restated), prompt.schema, messages) == (answer, "")


def test_a_model_that_reasons_beside_its_content_is_read_by_its_content(tmp_path):
    def beside(request):
        message = {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": YES}]},
                               {"type": "text", "text": NO}],
                   "reasoning_content": YES, "reasoning": YES}  # fmt: skip
        choice = {"finish_reason": "stop", "message": message}
        faulty.send(request, 200, faulty.completion("", choices=[choice]))
        return True

    with (
        LanguageService(lambda body: None, iter([beside])) as server,
        Client(service(server.url), tmp_path / "c.sqlite") as client,
    ):
        assert client.ask(requests(1))[0].value == {"n": 0}


def test_an_answer_that_is_cut_off_names_the_setting_to_raise(tmp_path, caplog):
    def cut(request):
        choice = {"finish_reason": "length", "message": {"content": f"<think> {YES}"}}
        faulty.send(request, 200, faulty.completion("", choices=[choice]))
        return True

    with (
        LanguageService(lambda body: NO, iter([cut, cut])) as server,
        Client(service(server.url), tmp_path / "c.sqlite") as client,
    ):
        [answer] = client.ask(requests(1))
    assert answer.status == "unparsed"
    assert "cut off" in answer.problem
    assert "raise services.test.max_tokens" in answer.problem
    assert "1 of 1 requests were cut off" in caplog.text


def test_a_repair_that_the_server_rejects_leaves_its_request_unparsed(tmp_path):
    def reply(body):
        assert all(message["content"] for message in body["messages"])
        if len(body["messages"]) > 1:
            raise faulty.Refusal(400, {"error": {"code": "context_length_exceeded"}})
        return ""

    with (
        LanguageService(reply) as server,
        Client(service(server.url), tmp_path / "c.sqlite") as client,
    ):
        assert client.ask(requests(1))[0].status == "unparsed"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (f"{YES} and then I", "ok"),
        (f"```json\n{YES}", "ok"),
        (f"<think>a</think>\n{YES} because", "ok"),
        (f"First it may be {YES}, but", "unparsed"),  # the template may have opened <think>
        ("", "unparsed"),
    ],
)
def test_of_a_text_that_was_cut_off_only_an_object_at_its_start_counts(tmp_path, content, status):
    choice = {"finish_reason": "length", "message": {"content": content}}

    def cut(request):
        faulty.send(request, 200, faulty.completion("", choices=[choice]))
        return True

    with (
        LanguageService(echo, iter([cut, cut])) as server,
        Client(service(server.url), tmp_path / "c.sqlite") as client,
    ):
        assert client.ask(requests(1))[0].status == status


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("praise of films", "ok"),
        ("I'm sorry, but I cannot explain that.", "refused"),
        ("I must respectfully decline.", "refused"),
        ("I don't feel comfortable with this text.", "refused"),
        (" \n ", "unparsed"),
        ("...!", "unparsed"),
    ],
)
def test_an_explanation_says_something(text, status):
    answer = language_model._checked(Answer("ok", {"explanation": text}))
    assert answer.status == status


def test_any_text_is_an_answer_where_no_schema_is_asked_for(tmp_path):
    request = Request([{"role": "user", "content": "x"}])
    with (
        LanguageService(lambda body: "<think>hm</think>yes") as server,
        Client(service(server.url), tmp_path / "c.sqlite") as client,
    ):
        assert client.ask([request])[0].value == "yes"
