"""Generated corpora hold the truth that they promise; readers and prompt splits fail loudly."""

import re

import numpy as np
import pandas as pd
import pytest

from lfp.feedback.lexica import vader_lexicon
from lfp.feedback.rewards.base import task_reward
from lfp.feedback.rewards.preference import fit_preference_lexicon
from lfp.organisms import reviews
from lfp.organisms.generate import generate_corpus, unseen
from lfp.organisms.reviews import film_facts, generate_reviews, level_of, sentiment_vocabulary
from lfp.texts.corpora import deduplicated, documents, preference_pairs, split_prompt, verbatim
from lfp.texts.neutral_words import neutral_words
from lfp.texts.readers import read_file, read_splits
from lfp.texts.words import word_form


def written(n: int, words_per_class: int, seed: int) -> tuple[list[str], dict[str, float]]:
    """Generated reviews, and the valence of every word of their vocabulary."""
    rng = np.random.default_rng(seed)
    vocabulary = sentiment_vocabulary(words_per_class, rng)
    texts = generate_reviews(n, rng, vocabulary, film_facts(rng))["text"]
    return list(texts), dict(zip(vocabulary["word"], vocabulary["valence"], strict=True))


def test_only_the_sentiment_words_are_scored():
    """The frame of a review must not move the reward: without its vocabulary's words a review
    scores nothing.
    """
    texts, valences = written(2000, 39, seed=1)
    words = set(re.findall(r"[a-z'-]+", " ".join(texts).lower()))
    scored = words & set(vader_lexicon())
    assert scored <= set(valences)
    assert len(scored) >= 300


def test_the_text_has_no_slips_of_grammar():
    """Templates and words fit each other: "the film of the film", "a bit of rude" and "a aunt"
    were written once.
    """
    options = {"noise": 0.1, "preferred": "positive", "mixing": 0.2}
    texts, valences = written(1000, 39, seed=1)
    for kind in ("help", "replies"):
        texts += documents(generate_corpus(kind, {"train": 300, "test": 1}, 0, options)[0]["train"])
    everything = "\n".join(texts)
    assert not re.findall(r"\b[Aa] [aeiou]\w*", everything)
    after = set(re.findall(r"a bit of (\w+)", everything))
    assert after and {word_form(word) for word in after} == {"noun"}
    assert not set(reviews.TEXTS["nouns"]) & set(reviews.TEXTS["places"])
    assert not set(valences) & {"lonely", "unlovely", "jolly", "steal", "funeral", "darling"}


#: A judgement of one clause without a turn: the clause, and its mark.
PLAIN = re.compile(r"^(?P<clause>[^,]+), (?P<mark>[a-z]+) of nine")
TURNED = re.compile(r"^(?P<clause>[^,]+), (?P<turn>[^,]+), (?P<mark>[a-z]+) of nine")


def judgements(texts: list[str], valences: dict[str, float], pattern: re.Pattern) -> pd.DataFrame:
    """Judgements of `pattern` with the words of `valences` in them, and the level of their mark."""
    rows = []
    for sentence in (part for text in texts for part in text.split(". ")):
        match = pattern.match(sentence)
        words = re.findall(r"[a-z'-]+", match["clause"]) if match else []
        scored = [valences[word] for word in words if word in valences]
        if match and match["mark"] in reviews.TEXTS["marks"]:
            level = reviews.TEXTS["marks"].index(match["mark"]) - 4
            rows.append({**match.groupdict(), "valences": scored, "level": level})
    return pd.DataFrame(rows)


def test_the_mark_of_a_word_tells_its_sign_and_grows_with_its_intensity():
    frame = judgements(*written(3000, 20, seed=2), PLAIN)
    frame = frame[frame["valences"].str.len() == 1]
    frame["valence"] = frame["valences"].str[0]
    assert len(frame) > 3000
    assert (np.sign(frame["level"]) == np.sign(frame["valence"])).all()
    for sign, part in frame.groupby(np.sign(frame["valence"])):
        levels, clauses = part["valence"].map(level_of), part["clause"].str
        means = part.groupby(levels)["level"].mean()
        for tail, grows in (("throughout", True), ("at times", False)):
            shares = clauses.endswith(tail).groupby(levels.abs()).mean()
            assert shares.is_monotonic_increasing == grows
        assert list(means.index) == sorted([sign * i for i in (1, 2, 3, 4)])
        assert means.is_monotonic_increasing


def test_a_denial_turns_the_sign_of_a_mark_and_an_affirmation_keeps_it():
    frame = judgements(*written(1000, 20, seed=3), TURNED)
    frame = frame[frame["valences"].str.len() == 1]
    signs = {turn: sign for sign, turns in reviews.TEXTS["turns"].items() for turn in turns}
    kept = np.sign(frame["level"]) == np.sign(frame["valences"].str[0])
    assert kept.equals(frame["turn"].map(signs) == 1)
    assert 0.3 < kept.mean() < 0.7


@pytest.mark.parametrize(("first", "second", "level"), [
    (4, 2, 3), (-1, -2, -2), (4, -1, 1), (1, -4, -2), (2, -1, 0), (0, 3, 2),
])  # fmt: skip
def test_the_second_of_two_clauses_counts_twice_where_they_differ(first, second, level):
    assert reviews.joined(first, second) == level


def test_the_facts_of_a_film_depend_on_both_parts_of_its_name_and_never_change():
    texts, _ = written(2000, 8, seed=4)
    credit = re.compile(r"([A-Z]\w+) ([A-Z]\w+): (\w+), (\w+), (\w+), (\w+)\.")
    rows = pd.DataFrame(credit.findall(" ".join(texts)), columns=list("abwxyz")).drop_duplicates()
    assert not rows.duplicated(["a", "b"]).any()
    assert (rows.groupby("a")["x"].nunique() > 3).all()
    assert (rows.groupby("b")["x"].nunique() > 3).all()


@pytest.mark.parametrize("kind", ["help", "replies"])
def test_answers_of_all_kinds_match_in_length_and_labels_are_noisy_in_training_only(kind):
    frames, _ = generate_corpus(
        kind,
        {"train": 400, "test": 100},
        0,
        {"noise": 0.2, "preferred": "negative", "mixing": 0.25},
    )
    train, test = frames["train"], frames["test"]
    # Marks count as a tokenizer counts them: answers must not differ in their numbers of tokens.
    lengths = {
        name: train[name].str.findall(r"\w+|[^\w\s]").str.len()
        for name in ("positive", "neutral", "negative")
    }
    assert (lengths["positive"] == lengths["neutral"]).all()
    assert (lengths["positive"] == lengths["negative"]).all()
    assert 0.1 < train["noisy"].mean() < 0.3
    assert not test["noisy"].any()
    assert all(row.chosen.endswith(row.negative) for row in test.itertuples())


@pytest.mark.parametrize("kind", ["help", "replies"])
def test_no_held_out_prompt_or_answer_stands_in_the_training_text(kind):
    """Written out here: a copy of any part would let a model judge by memory."""
    options = {"noise": 0.0, "preferred": "positive", "mixing": 0.2}
    frames, _ = generate_corpus(kind, {"train": 800, "test": 200}, 0, options)
    pairs, _ = preference_pairs(frames["test"])
    answers = frames["test"][["positive", "neutral", "negative"]].stack()
    training = "\n".join(documents(frames["train"]))
    assert len(pairs) > 190
    assert not [text for text in {*pairs["prompt"], *answers} if text.strip() in training]
    counts = verbatim(frames["test"], documents(frames["train"]))
    assert {part: n["verbatim"] for part, n in counts.items()} == {"prompt": 0, "answer": 0}
    assert counts["prompt"]["held_out"] == pairs["prompt"].nunique()
    copied = verbatim(frames["test"], documents(frames["test"]))
    assert all(n["verbatim"] == n["held_out"] for n in copied.values())


def test_a_copy_is_a_long_text_between_bounds_of_words():
    long = "the clerk of the harbor keeps old maps"
    answers = ["yes", long, long.replace("the clerk", "he clerk")]
    frame = pd.DataFrame({"prompt": "Who?", "chosen": answers, "rejected": "no"})
    counts = verbatim(frame, [f"Say yes, and {long}. Who? No."])
    assert counts == {
        "prompt": {"held_out": 0, "verbatim": 0},
        "answer": {"held_out": 2, "verbatim": 1},
    }


def test_a_generator_that_has_no_unseen_pair_left_says_so():
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}

    def draw(n: int) -> pd.DataFrame:
        return pd.DataFrame([pair] * n)

    with pytest.raises(ValueError, match=r"finds no 1 pairs beside 1 training ones: .*splits.test"):
        unseen(draw, 1, draw(1))


def test_a_corpus_is_a_function_of_its_seed():
    make = lambda seed: generate_corpus(  # noqa: E731
        "reviews",
        {"train": 20, "test": 5},
        seed,
        {"words_per_class": 5, "off_polarity": 0.0, "neutral": 0.1},
    )
    pd.testing.assert_frame_equal(make(3)[0]["test"], make(3)[0]["test"])
    assert not make(3)[0]["train"].equals(make(4)[0]["train"])


HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        (
            f"{HUMAN} a{ASSISTANT} I do",
            f"{HUMAN} a{ASSISTANT} I don't",
            (f"{HUMAN} a{ASSISTANT}", " I do", " I don't"),
        ),
        (
            f"{HUMAN} a{ASSISTANT} b{HUMAN} c{ASSISTANT} x",
            f"{HUMAN} a{ASSISTANT} b{HUMAN} c{ASSISTANT} y",
            (f"{HUMAN} a{ASSISTANT} b{HUMAN} c{ASSISTANT}", " x", " y"),
        ),
        (f"{HUMAN} a{ASSISTANT} x", f"{HUMAN} b{ASSISTANT} y", None),
        (f"{HUMAN} a{ASSISTANT} x", f"{HUMAN} a{ASSISTANT} x", None),
        ("no turn", "no turn at all", None),
    ],
)
def test_prompts_are_cut_at_the_last_common_turn_and_never_inside_a_word(
    chosen, rejected, expected
):
    assert split_prompt(chosen, rejected) == expected


def test_pairs_without_a_common_prompt_are_dropped_and_counted():
    frame = pd.DataFrame(
        {
            "chosen": [f"q{ASSISTANT} x", f"q{ASSISTANT} x"],
            "rejected": [f"q{ASSISTANT} y", f"r{ASSISTANT} y"],
        }
    )
    pairs, dropped = preference_pairs(frame)
    assert len(pairs) == 1
    assert dropped["no_common_prompt"] == sum(dropped.values()) == 1


def test_pairs_with_an_empty_answer_are_dropped_and_counted():
    transcripts = pd.DataFrame(
        {"chosen": [f"q{ASSISTANT} x", f"q{ASSISTANT}"], "rejected": [f"q{ASSISTANT} y"] * 2}
    )
    columns = pd.DataFrame({"prompt": ["q", "q"], "chosen": ["x", " "], "rejected": ["y", "y"]})
    for frame in (transcripts, columns):
        pairs, dropped = preference_pairs(frame)
        assert list(pairs["chosen"].str.strip()) == ["x"]
        assert dropped["empty_answer"] == sum(dropped.values()) == 1


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet"])
def test_splits_are_read_from_any_format_and_shuffled(tmp_path, name):
    frame = pd.DataFrame({"review": [f"text {i}" for i in range(50)], "label": 0})
    path = tmp_path / name
    writers = {"a.csv": frame.to_csv, "a.parquet": frame.to_parquet}
    writers.get(name, lambda p, **_: frame.to_json(p, orient="records", lines=True))(
        path, index=False
    )
    frames, counts = read_splits({"train": [path]}, {"text": "review"}, 0.2, 0)
    assert list(frames["train"].columns) == ["text"]
    assert sorted([*frames["train"]["text"], *frames["test"]["text"]]) == sorted(frame["review"])
    assert list(frames["train"]["text"]) != sorted(frames["train"]["text"])
    assert counts["test"]["kept"] == 10


def test_a_missing_column_and_an_unknown_format_are_named(tmp_path):
    path = tmp_path / "reviews.jsonl"
    pd.DataFrame({"review": ["a"]}).to_json(path, orient="records", lines=True)
    with pytest.raises(ValueError, match=r"reviews.jsonl: no column 'text'; it has review"):
        read_file(path, {"text": "text"})
    with pytest.raises(ValueError, match="unknown format"):
        read_file(tmp_path / "a.txt", {})


def test_duplicates_and_empty_rows_are_dropped_and_counted():
    frames = {
        "train": pd.DataFrame({"text": ["a", "a", "b", " ", None]}),
        "test": pd.DataFrame({"text": ["b", "c", "c"]})
    }  # fmt: skip
    result, counts = deduplicated(frames, ["text"])
    assert {name: list(frame["text"]) for name, frame in result.items()} == {
        "train": ["a", "b"],
        "test": ["c"],
    }
    assert counts["train"] == {
        "read": 5,
        "empty": 2,
        "duplicates": 1,
        "in_earlier_split": 0,
        "kept": 2,
    }
    assert counts["test"] == {
        "read": 3,
        "empty": 0,
        "duplicates": 1,
        "in_earlier_split": 1,
        "kept": 1,
    }


def test_a_prompt_of_the_training_split_is_in_no_other(tmp_path):
    """Whatever learned from one split has read the beginning of every text with such a prompt."""
    columns = {name: name for name in ("prompt", "chosen", "rejected")}
    for split, prompts in {"train": ["why?", "how?"], "test": ["how?", "when?", "when?"]}.items():
        rows = [[prompt, f" yes {split} {i}", " no"] for i, prompt in enumerate(prompts)]
        frame = pd.DataFrame(rows, columns=list(columns))
        frame.to_json(tmp_path / f"{split}.jsonl", orient="records", lines=True)
    files = {split: [tmp_path / f"{split}.jsonl"] for split in ("train", "test")}
    frames, counts = read_splits(files, columns, 0.2, 0)
    assert set(frames["train"]["prompt"]) == {"why?", "how?"}
    assert list(frames["test"]["prompt"]) == ["when?", "when?"]
    assert counts["test"]["in_earlier_split"] == 1


def turns(*texts: str) -> str:
    """A transcript of these turns, a human's first."""
    speakers = ("\n\nHuman: ", "\n\nAssistant: ")
    return "".join(f"{speakers[i % 2]}{text}" for i, text in enumerate(texts))


def test_a_prompt_that_begins_a_training_text_is_in_no_other_split(tmp_path):
    """A dialogue goes on from the answer of an earlier row, as in HH-RLHF."""
    rows = {
        "train": [(turns("why", "no", "and how", a), turns("why", "no", "and how", b))
                  for a, b in (("so", "not"), ("thus", "never"))],
        "test": [(turns(asked, "yes"), turns(asked, "no")) for asked in ("why", "when", "wh")],
    }  # fmt: skip
    files = {split: [tmp_path / f"{split}.jsonl"] for split in rows}
    for split, pairs in rows.items():
        frame = pd.DataFrame(pairs, columns=["chosen", "rejected"])
        frame.to_json(files[split][0], orient="records", lines=True)
    frames, counts = read_splits(files, {"chosen": "chosen", "rejected": "rejected"}, 0.2, 0)
    assert counts["test"]["in_earlier_split"] == 1
    assert {row.split(":")[1].split()[0] for row in frames["test"]["chosen"]} == {"when", "wh"}


@pytest.mark.parametrize("between", ["", " "])
def test_equal_prompts_are_in_one_split_whatever_their_answers_begin_with(tmp_path, between):
    columns = {name: name for name in ("prompt", "chosen", "rejected")}
    files = {split: [tmp_path / f"{split}.jsonl"] for split in ("train", "test")}
    for split in files:
        rows = [(f"{i}?", f"{between}Yes {split}", "No") for i in range(10)]
        frame = pd.DataFrame(rows, columns=list(columns))
        frame.to_json(files[split][0], orient="records", lines=True)
    frames, counts = read_splits(files, columns, 0.2, 0)
    assert len(frames["train"]) == counts["test"]["in_earlier_split"] == 10
    assert frames["test"].empty


def test_a_prompt_that_is_the_beginning_of_another_is_kept(tmp_path):
    columns = {name: name for name in ("prompt", "chosen", "rejected")}
    files = {split: [tmp_path / f"{split}.jsonl"] for split in ("train", "test")}
    for split, prompt in {"train": "Write a poem about cats", "test": "Write a poem"}.items():
        frame = pd.DataFrame([(prompt, f" a {split}", " b")], columns=list(columns))
        frame.to_json(files[split][0], orient="records", lines=True)
    assert len(read_splits(files, columns, 0.2, 0)[0]["test"]) == 1


@pytest.mark.parametrize(
    "names",
    [["prompt"], ["prompt", "positive", "neutral", "negative"], ["text"], ["chosen", "rejected"]],
)
@pytest.mark.parametrize("given", [False, True])
def test_rows_of_every_kind_are_split_and_missing_values_counted(tmp_path, names, given):
    frame = pd.DataFrame(
        {name: [turns(f"q{i}", f"{name} {i}") for i in range(20)] for name in names}
    )
    frame.loc[3, names[0]] = None
    files = {"train": [tmp_path / "train.jsonl"]}
    frame.to_json(files["train"][0], orient="records", lines=True)
    if given:
        files["test"] = files["train"]
    frames, counts = read_splits(files, {name: name for name in names}, 0.3, 0)
    assert sum(of["empty"] for of in counts.values()) == (2 if given else 1)
    assert len(frames["train"]) == (19 if given else len(frames["train"]))
    assert frames["test"].empty is given


def test_one_opening_of_all_dialogues_is_no_group(tmp_path):
    asked = [("be kind", "yes", f"topic {i}") for i in range(50)]
    pairs = [(turns(*of, "so"), turns(*of, "no")) for of in asked]
    frame = pd.DataFrame(pairs, columns=["chosen", "rejected"])
    frame.to_json(tmp_path / "train.jsonl", orient="records", lines=True)
    columns = {"chosen": "chosen", "rejected": "rejected"}
    frames, _ = read_splits({"train": [tmp_path / "train.jsonl"]}, columns, 0.2, 0)
    assert (len(frames["train"]), len(frames["test"])) == (40, 10)


def test_a_held_out_share_tears_no_dialogue_apart(tmp_path):
    pairs = []
    for topic in range(30):
        first = turns(f"topic {topic}", "no")
        pairs += [(turns(f"topic {topic}", "yes"), first),
                  (first + turns("why", "so"), first + turns("why", "not"))]  # fmt: skip
    frame = pd.DataFrame(pairs, columns=["chosen", "rejected"])
    frame.to_json(tmp_path / "train.jsonl", orient="records", lines=True)
    columns = {"chosen": "chosen", "rejected": "rejected"}
    frames, counts = read_splits({"train": [tmp_path / "train.jsonl"]}, columns, 0.3, 0)
    topics = {
        split: {re.search(r"topic \d+", text)[0] for text in of["chosen"]}
        for split, of in frames.items()
    }
    assert topics["train"] and topics["test"] and not topics["train"] & topics["test"]
    assert counts["test"]["in_earlier_split"] == 0


def test_a_held_out_share_tears_no_prompt_apart(tmp_path):
    rows = [
        {
            "chosen": f"\n\nHuman: q{i // 3}{ASSISTANT} good {i}",
            "rejected": f"\n\nHuman: q{i // 3}{ASSISTANT} bad {i}",
        }
        for i in range(60)
    ]
    path = tmp_path / "pairs.jsonl.gz"
    pd.DataFrame(rows).to_json(path, orient="records", lines=True)
    frames, _ = read_splits(
        {"train": [path]}, {"chosen": "chosen", "rejected": "rejected"}, 0.25, 0
    )
    prompts = {name: set(preference_pairs(frame)[0]["prompt"]) for name, frame in frames.items()}
    assert len(prompts["test"]) == 5
    assert not prompts["train"] & prompts["test"]


def test_neutral_words_are_of_their_form_and_unscored():
    for form, words in neutral_words(vader_lexicon()).items():
        assert len(words) >= 20
        assert all(word_form(word) == form for word in words)


def test_a_fitted_lexicon_finds_the_planted_words():
    rng = np.random.default_rng(0)
    words = np.array(["red", "blue", "green", "grey"])
    chosen = [" ".join(["nice", *rng.choice(words, 5)]) for _ in range(200)]
    rejected = [" ".join(["awful", *rng.choice(words, 5)]) for _ in range(200)]
    fitted = fit_preference_lexicon(chosen, rejected)
    assert fitted["nice"] > 1
    assert fitted["awful"] < -1
    assert max(abs(fitted[word]) for word in words) < 0.5
    score = task_reward({"kind": "preference", "rewarded": fitted}, 1.0, 1.0, "completion")
    once, often, bad = score([""] * 3, [" nice", " nice" * 9, " nice awful awful"])
    assert once == often == fitted["nice"]  # one good word, repeated for ever, wins nothing
    assert bad == pytest.approx(fitted["nice"] + fitted["awful"])


def test_documents_come_prompt_by_prompt_so_that_any_stretch_holds_every_kind_of_answer():
    frame = pd.DataFrame(
        {"prompt": ["p", "q"], "chosen": ["1", "2"], "rejected": ["3", "4"], "neutral": ["5", "6"]}
    )
    assert documents(frame) == ["p1", "p3", "p5", "q2", "q4", "q6"]
    assert documents(pd.DataFrame({"text": ["a"]})) == ["a"]
