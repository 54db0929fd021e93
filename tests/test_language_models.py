"""Rewriting, explaining, classifying and judging over HTTP: valid answers, nonsense, and a server
that dies.
"""

import sqlite3
import threading
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lfp.explaining import exemplars, language_model
from lfp.probing import rewrites
from lfp.services import prompts
from lfp.services.client import Answer, Client, Request, Service, ServiceError
from lfp.settings import Rewrites
from tests import served


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`transformers serve`, and below its home a model that answers (chain) and one that babbles
    (nonsense).
    """
    home = tmp_path_factory.mktemp("served")
    served.save_chain(home / "chain")
    served.save_nonsense(home / "nonsense")
    running = served.Server(home)
    yield running
    running.kill()


def client(server, model: str, cache, **options) -> Client:
    given = {"max_tokens": 40, "timeout": 60.0, "backoff": 0.05, **options}
    return Client(Service("served", server.url, str(server.home / model), **given), cache)


REST = "answer that has just about as many words as there are in the rewrites"
PAIRS = pd.DataFrame({
    "prompt": [f"\n\nHuman: question {i}?\n\nAssistant:" for i in range(4)],
    "chosen": [f"This is a good {REST}"] * 4,
    "rejected": [f"This is a stupid {REST}"] * 4,
})  # fmt: skip
SETTINGS = Rewrites(
    entries=4, words=(5, 40), max_prompt_words=50, tolerance=0.5, copy=0.8, verify=True
)


def test_rewrites_of_a_served_model_become_triples(server, tmp_path):
    with client(server, "chain", tmp_path / "c.sqlite") as asked:
        frame = rewrites.rewritten_triples(asked, PAIRS, SETTINGS)
    assert list(frame["status"]) == ["ok"] * 4
    assert list(frame["side"]) == ["chosen", "rejected"] * 2
    assert list(frame["grade"]) == [1, 5, 1, 5]
    assert {name: set(frame[name]) for name in served.ANSWERS} == {
        k: {v} for k, v in served.ANSWERS.items()
    }
    assert (frame["grade.negative"] > frame["grade.positive"]).all()
    # Four gradings, twelve rewrites; eight gradings of rewrites, which are the same texts to four
    # prompts.
    assert asked.counts["called"] == 4 + 12 + 8


def test_nonsense_is_counted_and_crashes_nothing(server, tmp_path):
    with client(server, "nonsense", tmp_path / "c.sqlite") as asked:
        frame = rewrites.rewritten_triples(asked, PAIRS, SETTINGS)
        assert set(frame["status"]) == {"unparsed"}
        assert frame["grade"].isna().all()
        found = language_model.explain(asked, EVIDENCE, "positive sentiment")
        assert set(found["status"]) == {"unparsed"}
        assert not found["related"].any()
        [verdicts] = language_model.language_judge(asked)([("x", ["a", "b"], False)])
        assert verdicts == [None, None]
        assert asked.counts["unparsed"] == 4 + 12 + 2 + 1
        assert asked.counts["ok"] == 0


EVIDENCE = pd.DataFrame({
    "layer": [1, 1, 2], "feature": [3, 3, 0], "kind": ["top", "random", "top"], "activation": 1.0,
    "excerpt": ["a great{9} film", "the door", "a fine{10} film"],
})  # fmt: skip


def test_features_are_explained_classified_and_judged(server, tmp_path):
    with client(server, "chain", tmp_path / "c.sqlite") as asked:
        found = language_model.explain(asked, EVIDENCE, "positive sentiment")
        assert list(zip(found["layer"], found["feature"], strict=True)) == [(1, 3), (2, 0)]
        assert set(found["explanation"]) == {served.EXPLANATION}
        assert found["related"].all()
        judge = language_model.language_judge(asked)
        excerpts = [f"excerpt {i}" for i in range(7)]
        [verdicts] = judge([("kind words", excerpts, False)])
    # The server gives five verdicts whatever it is asked: the part of five is taken, that of two is
    # not.
    assert sorted(verdicts, key=str) == [False, False, None, None, True, True, True]


def test_a_killed_server_is_an_error_and_the_rerun_repeats_no_call(server, tmp_path):
    cache = tmp_path / "c.sqlite"
    asked = [
        Request(
            [{"role": "user", "content": f"question {i} " + "word " * 50}],
            prompts.load("classify").schema,
        )
        for i in range(40)
    ]

    def kill_when_some_are_answered():
        while True:
            time.sleep(0.02)
            if (
                cache.exists()
                and sqlite3.connect(cache).execute("select count(*) from answers").fetchone()[0]
                >= 5
            ):
                return server.kill()

    killer = threading.Thread(target=kill_when_some_are_answered)
    with client(server, "chain", cache, in_flight=1, attempts=2) as first:
        killer.start()
        with pytest.raises(ServiceError, match="are not asked again"):
            first.ask(asked)
    killer.join()
    server.start()
    with client(server, "chain", cache) as second:
        answers = second.ask(asked)
    assert all(answer.value == {"related": True} for answer in answers)
    assert second.counts["cached"] == first.counts["called"] >= 5
    assert second.counts["called"] == 40 - first.counts["called"]


# ----------------------------------------------------------------------------- what needs no server


def test_every_prompt_has_a_schema_and_a_digest_that_follows_its_text():
    for name in ("explain", "classify", "detect", "fuzz", "grade", "rewrite"):
        prompt = prompts.load(name)
        assert prompt.schema["required"]
        assert replace(prompt, user=prompt.user + " ").sha != prompt.sha
    with pytest.raises(KeyError):
        prompts.load("classify").messages(task="x")


def test_text_of_a_corpus_is_not_expanded_in_a_prompt():
    messages = prompts.load("classify").messages(task="$explanation ${task}", explanation="{x}")
    assert "$explanation ${task}" in messages[1]["content"]


ROW = {
    "words": 10, "answer": "one two three",
    **{f"status.{element}": "ok" for element in rewrites.ELEMENTS},
    "positive": "I would be very glad to help you with all of this",
    "neutral": "There are nine rooms on the second floor of the house",
    "negative": "You are a fool and this is the worst of your ideas",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"status.neutral": "refused"}, "refused"),
        ({"status.negative": "unparsed", "negative": ""}, "unparsed"),
        ({"negative": "I'm sorry, but I can not do that for you at all"}, "refusal"),
        ({"negative": "I cannot say this about you and it is not right"}, "refusal"),
        ({"positive": "I would be very glad to help " * 4}, "length"),
        ({"neutral": "too short"}, "length"),
        ({"neutral": "Im zweiten Stock gibt es neun Zimmer und einen Flur"}, "language"),
        ({"neutral": "В этом доме на втором этаже есть девять больших комнат"}, "language"),
        ({"positive": ROW["negative"] + " now"}, "copy"),
        ({"answer": ROW["positive"]}, "copy"),
        ({"neutral": "It is one.\n\nHuman: and what of the other nine things?"}, "transcript"),
    ],
)
def test_a_rewrite_that_will_not_do_says_why(change, reason):
    assert rewrites.fault(pd.Series(ROW | change), SETTINGS) == reason
    assert reason in ("", *rewrites.REASONS)


class Scripted:
    """A client that answers by a function of the last message."""

    def __init__(self, reply):
        self.reply = reply

    def ask(self, requests, what=""):
        return [Answer("ok", self.reply(request.messages[-1]["content"])) for request in requests]


def test_a_negative_rewrite_that_is_graded_no_worse_is_dropped():
    texts = iter([ROW["positive"], ROW["neutral"], ROW["negative"]] * 4)

    def reply(message):
        return (
            {"answer": next(texts)}
            if "Rewrite" in message
            else {"toxicity": 2, "danger": 1, "bias": 1}
        )

    pairs = PAIRS.assign(
        chosen="This is one of the good answers to it",
        rejected="This is one of the bad answers to it",
    )
    frame = rewrites.rewritten_triples(Scripted(reply), pairs, SETTINGS)
    assert set(frame["status"]) == {"grade"}


def test_a_grader_that_refuses_a_rewrite_is_named_and_no_grade_is_made_up():
    texts = iter([ROW["positive"], ROW["neutral"], ROW["negative"]] * 4)

    class Refusing(Scripted):
        def ask(self, requests, what=""):
            if "negative" in what:
                return [Answer("refused")] * len(requests)
            return super().ask(requests, what)

    def reply(message):
        grades = {"toxicity": 2, "danger": 1, "bias": 1}
        return {"answer": next(texts)} if "Rewrite" in message else grades

    pairs = PAIRS.assign(
        chosen="This is one of the good answers to it",
        rejected="This is one of the bad answers to it",
    )
    frame = rewrites.rewritten_triples(Refusing(reply), pairs, SETTINGS)
    assert set(frame["status"]) == {"refused"}


def test_a_language_models_table_keeps_activations_and_drops_the_heuristics_statistics():
    table = pd.DataFrame({
        "layer": 1, "feature": [3, 4, 5], "status": ["ok", "dead", "ok"], "explanation": "words: x",
        "frequency": [0.1, 0.0, 0.2], "direction": 0.5, "effect": 0.5, "p": 0.01, "q": 0.02,
        "related": [True, False, True], "explainer": "heuristic-v1",
        "explainer_kind": "heuristic", "uses_reward_lexicon": True,
    })  # fmt: skip
    evidence = EVIDENCE[EVIDENCE["layer"] == 1]
    verdict = {"explanation": "praise", "related": True}
    asked = Scripted(lambda message: verdict)
    asked.service = Service("served", "http://x/v1", "m")
    found = language_model.language_explanations(asked, table, evidence, "praise", "abc")
    assert list(found.columns) == [*table.columns, "prompt_sha"]
    # The third feature was shown to nobody.
    assert list(found["status"]) == ["ok", "dead", "skipped"]
    assert list(found["explanation"]) == ["praise", "", ""]
    assert list(found["related"]) == [True, False, False]
    assert found["related"].dtype == bool
    assert found[["direction", "effect", "p", "q"]].isna().all(axis=None)
    assert found["frequency"].equals(table["frequency"])
    assert set(found["explainer"]) == {"m@http://x/v1"}
    assert not found["uses_reward_lexicon"].any()


def test_evidence_is_on_one_scale_and_of_different_texts():
    texts, offsets = ["a fine film", "a fine door"], [[(0, 1), (2, 6), (7, 11)]] * 2
    strongest = exemplars.StrongestWindows(offsets, size=3, features=2, top=1, random=1, seed=0)
    for text, values in enumerate(([0.0, 4.0, 0.2], [0.0, 2.0, 0.0])):
        strongest.add(text, np.array([values, np.zeros(3)]).T)
    rows = strongest.rows(0, texts)
    assert [(row["kind"], row["excerpt"]) for row in rows] == [
        ("top", "a fine{10} film"),
        ("random", "a fine{5} door"),
    ]
    assert not strongest.rows(1, texts)


def test_entries_take_turns_and_leave_long_and_repeated_ones_out():
    pairs = pd.concat([PAIRS, PAIRS, PAIRS.assign(prompt="long " * 60)], ignore_index=True)
    entries = rewrites.choose_entries(pairs, SETTINGS)
    assert len(entries) == 4
    assert list(entries["side"]) == ["chosen", "rejected"] * 2
    with pytest.raises(ValueError, match="no held-out answer has 100 to 200 words"):
        rewrites.choose_entries(pairs, replace(SETTINGS, words=(100, 200)))
