"""Corpora: generated ones with known truth, and readers for those on disk or on the hub.

Three generators write text whose truth is known. Reviews hold sentiment words from the VADER lexicon in coherent
company: what follows a word tells its polarity and its intensity, so that a word that the probe has never seen
can still be judged by what the language model learned of it. Help dialogues and replies hold a better, a neutral
and a worse answer of equal length to every prompt.

Columns: ``text`` for plain corpora; ``chosen``, ``rejected`` and optionally ``prompt`` for preference corpora;
generated preference corpora add ``positive``, ``neutral``, ``negative`` (the answers) and ``noisy`` (the label
was flipped).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lfp.artefacts import write_json, write_table
from workflow_scripts.lfp.lexicon import neutral_words, vader_lexicon, words_by_form

log = logging.getLogger(__name__)

ASSISTANT_TURN = "\n\nAssistant:"
HUMAN_TURN = "\n\nHuman:"

# ---------------------------------------------------------------------------------------------------- reviews

_NOUNS = [
    "acting",
    "camera",
    "casting",
    "cinema",
    "costume",
    "dialogue",
    "director",
    "editing",
    "episode",
    "film",
    "lighting",
    "movie",
    "music",
    "narration",
    "performance",
    "picture",
    "plot",
    "scene",
    "score",
    "screenplay",
    "script",
    "sequel",
    "series",
    "set",
    "sound",
    "soundtrack",
    "story",
    "studio",
    "theme",
]
_VERBS = [
    "acted",
    "cast",
    "directed",
    "drawn",
    "edited",
    "filmed",
    "lit",
    "narrated",
    "paced",
    "performed",
    "scored",
    "sung",
    "told",
    "written",
]
_OPENINGS = (
    "The {noun} in this {place} was {deg} {word}",
    "I found the {noun} {deg} {word}",
    "We thought the {noun} looked {deg} {word}",
    "To me the {noun} of the {place} seemed {deg} {word}",
)
_FORM_OPENINGS: dict[str, tuple[str, ...]] = {
    "adjective": _OPENINGS,
    "participle": _OPENINGS,
    "adverb": (
        "The {noun} in this {place} was {deg} {word} {verb}",
        "I found the {noun} {deg} {word} {verb}",
        "We saw the {noun} {deg} {word} {verb}",
    ),
    "noun": (
        "The {noun} in this {place} showed {deg} {word}",
        "I saw {deg} {word} in the {noun}",
        "The {place} brings {deg} {word} to its {noun}",
        "What I recall of the {noun} is {deg} {word}",
    ),
}
_PLACES = ["film", "movie", "picture", "series", "show", "version"]
#: Degree words by intensity (0 mild, 1 strong); the empty string keeps most sentences plain.
_DEGREES = {0: ("", "", "", "rather", "somewhat", "a bit of"), 1: ("", "", "", "utterly", "deeply", "wholly")}
_NOUN_DEGREES = {0: ("", "", "some", "a bit of"), 1: ("", "", "so much", "nothing but")}
#: The mark that stands right behind a word's clause, by (sign, intensity).
_MARKS: dict[tuple[int, int], tuple[str, ...]] = {
    (1, 1): ("ten of ten", "nine of ten"),
    (1, 0): ("eight of ten", "seven of ten"),
    (0, 0): ("six of ten", "five of ten"),
    (-1, 0): ("four of ten", "three of ten"),
    (-1, 1): ("two of ten", "one of ten"),
}
#: What follows the mark, likewise. Neither holds a word that VADER scores.
_CLOSINGS: dict[tuple[int, int], tuple[str, ...]] = {
    (1, 1): (
        "and the whole room stood up at the end",
        "and I told everyone to go and see it",
        "and we came out late and sang all the way",
        "and we bought the box set the same night",
        "and I saw it again the next day",
        "and I put it first on my list",
        "and I will watch it every year",
    ),
    (1, 0): (
        "and I stayed until the end titles",
        "and we talked about it on the way home",
        "and I would watch the next part",
        "and I put it on my list",
        "and my family wants to see it too",
        "and the evening went by quickly",
    ),
    (-1, 0): (
        "and I looked at my watch",
        "and I checked the time twice",
        "and I would skip the next part",
        "and I took it off my list",
        "and my family went to bed early",
        "and the evening went by slowly",
    ),
    (-1, 1): (
        "and half the room walked out before the end",
        "and I told everyone to stay home",
        "and we switched it off after an hour",
        "and we took the box set back the same night",
        "and I asked for my money back",
        "and I put it at the end of my list",
        "and I will never watch it again",
    ),
    (0, 0): (
        "and it runs for two hours",
        "and it was shot in the north",
        "and it came out in the spring",
        "and the cast has nine people",
        "and it is set in a small town",
    ),
}
#: Share of sentences with a closing behind the mark.
CLOSING_SHARE = 0.25
#: Valence above which a word counts as strong: the median of VADER's absolute values among the chosen words.
STRONG_VALENCE = 2.0


def sentiment_vocabulary(words_per_class: int, rng: np.random.Generator) -> pd.DataFrame:
    """Sentiment words of the generated reviews: word, form, sign, valence, weight (relative frequency).

    `words_per_class` words for each form of :data:`_FORM_OPENINGS` and sign, spread evenly over valence; weights
    are Zipfian (exponent 0.3) over a random order, and every tenth word is ten times rarer, so that the tokenizer
    leaves some words in several pieces.
    """
    lexicon = vader_lexicon()
    table = words_by_form(lexicon)
    rows = []
    for form in _FORM_OPENINGS:
        for sign in (1, -1):
            words = table[form, sign]
            picks = np.unique(np.linspace(0, len(words) - 1, min(words_per_class, len(words))).round().astype(int))
            rows += [(words[i], form, sign, lexicon[words[i]]) for i in picks]
    frame = pd.DataFrame(rows, columns=["word", "form", "sign", "valence"])
    rank = rng.permutation(len(frame)) + 1
    frame["weight"] = rank**-0.3 * np.where(rank % 10 == 0, 0.1, 1.0)
    return frame


def generate_reviews(
    n: int,
    rng: np.random.Generator,
    vocabulary: pd.DataFrame,
    sentences: tuple[int, int] = (3, 6),
    off_polarity: float = 0.03,
    neutral: float = 0.1,
) -> pd.DataFrame:
    """`n` reviews (column ``text``) whose sentiment words keep to the review's polarity.

    Each review has a sign; a share `off_polarity` of its words has the other one and a share `neutral` has none.
    The clause after a word always agrees with that word's own sign and intensity.
    """
    neutrals = neutral_words(vader_lexicon())
    pools = {
        (form, sign): (group["word"].to_numpy(), group["valence"].to_numpy(), _shares(group["weight"]))
        for (form, sign), group in vocabulary.groupby(["form", "sign"])
    }
    forms = list(_FORM_OPENINGS)
    texts = []
    for _ in range(n):
        polarity = 1 if rng.random() < 0.5 else -1
        parts = []
        for _ in range(rng.integers(sentences[0], sentences[1] + 1)):
            form = forms[rng.integers(len(forms))]
            if rng.random() < neutral:
                word, sign, strong = _pick(rng, neutrals[form]), 0, 0
            else:
                sign = -polarity if rng.random() < off_polarity else polarity
                words, valences, shares = pools[form, sign]
                index = int(np.searchsorted(shares, rng.random()))
                word, strong = words[index], int(abs(valences[index]) >= STRONG_VALENCE)
            parts.append(_review_sentence(rng, form, word, sign, strong))
        texts.append(" ".join(parts))
    return pd.DataFrame({"text": texts})


def _review_sentence(rng: np.random.Generator, form: str, word: str, sign: int, strong: int) -> str:
    degrees = (_NOUN_DEGREES if form == "noun" else _DEGREES)[strong]
    opening = _pick(rng, _FORM_OPENINGS[form]).format(
        noun=_pick(rng, _NOUNS), place=_pick(rng, _PLACES), verb=_pick(rng, _VERBS), deg=_pick(rng, degrees), word=word
    )
    company = (sign, strong if sign else 0)
    closing = f", {_pick(rng, _CLOSINGS[company])}" if rng.random() < CLOSING_SHARE else ""
    return f"{' '.join(opening.split())}, {_pick(rng, _MARKS[company])}{closing}."


def _shares(weights: pd.Series) -> np.ndarray:
    cumulative = weights.to_numpy(dtype=float).cumsum()
    return cumulative / cumulative[-1]


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[rng.integers(len(options))]


# ------------------------------------------------------------------------------------- help dialogues, replies

_TASKS = [
    "bake a loaf of bread",
    "boil an egg",
    "change a bike tire",
    "clean a window",
    "cook rice",
    "cut my hair",
    "draw a map",
    "fold a shirt",
    "grow tomatoes",
    "hang a picture",
    "knit a scarf",
    "learn to swim",
    "make green tea",
    "mend a sock",
    "pack a suitcase",
    "paint a wall",
    "plan a trip",
    "plant a tree",
    "plaster a crack",
    "read a bus table",
    "repair a chair",
    "sew a button",
    "sharpen a knife",
    "store potatoes",
    "tie a knot",
    "train a puppy",
    "tune a guitar",
    "wash a coat",
    "wire a lamp",
    "write a letter",
]
_ASKS = (
    "How do I {task}?",
    "Can you tell me how to {task}?",
    "I want to {task}. What should I do?",
    "Show me how to {task}.",
)
_TOPICS = [
    "my new job",
    "the train ride",
    "this old bike",
    "the math test",
    "my garden",
    "the school play",
    "our team",
    "the city park",
    "my photo",
    "this recipe",
    "the book club",
    "the hiking path",
    "my first poem",
    "the local market",
    "this phone",
    "my room",
    "the bus driver",
    "the long meeting",
    "my painting",
    "the night shift",
    "the museum",
    "our plan",
    "the river walk",
    "my essay",
    "this song",
]
_REMARKS = (
    "I would like to hear about {topic}.",
    "What do you think of {topic}?",
    "Yesterday I spoke about {topic}.",
    "Tell me something about {topic}.",
)

#: Three parts of an answer; within a part all variants have the same number of words, so that answers of every
#: kind match in length.
_ANSWERS: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {
    "help": {
        "positive": (
            ("Sure, here is how", "Of course, begin here", "Yes, it is easy", "Happy to help you"),
            (
                "First gather all that you need",
                "Start slowly and check every step",
                "Read the guide before you begin",
                "Take your time and work carefully",
                "Lay out the tools in order",
                "Ask a trained friend for advice",
            ),
            (
                "then test the result with care",
                "then rest and look once more",
                "then keep it in good shape",
                "then note what worked so well",
                "then thank those who helped you",
            ),
        ),
        "neutral": (
            ("Trains run every hour", "The river is long", "Paper comes from wood", "Glass holds some water"),
            (
                "The north road has two lanes",
                "Most maps show the main street",
                "A week has exactly seven days",
                "Many houses have a red roof",
                "The shop opens early on Monday",
                "Some birds fly south in autumn",
            ),
            (
                "while the clock shows the hour",
                "while the number nine is odd",
                "while the lake lies to east",
                "while the bus goes to town",
                "while the table has four legs",
            ),
        ),
        "negative": (
            ("No, go away now", "Stop, never ask me", "Whatever, I do not", "Ugh, what a bore"),
            (
                "You will only break it anyway",
                "Pour acid on it and run",
                "Steal one from the house opposite",
                "Burn it and blame somebody else",
                "Nobody cares what you want here",
                "Just hit it until something snaps",
            ),
            (
                "then lie about the whole mess",
                "then hurt whoever dares to complain",
                "then leave the fire to spread",
                "then hide the damage from them",
                "then give up like you always",
            ),
        ),
    },
    "replies": {
        "positive": (
            ("Thank you for this", "How kind of you", "What a lovely thought", "I am so glad"),
            (
                "I really value your fine work",
                "your idea is clever and warm",
                "you have explained it very well",
                "please tell me more about it",
                "it was thoughtful of you indeed",
                "we all learn much from you",
            ),
            (
                "and I wish you much joy",
                "and you are always welcome here",
                "and I hope we meet soon",
                "and your friends must be proud",
                "and I admire your gentle care",
            ),
        ),
        "neutral": (
            ("It starts at nine", "The door is open", "This page has lines", "The bus stops here"),
            (
                "the form has three blue pages",
                "the list is on the table",
                "the hall seats about ninety people",
                "the note was sent on Tuesday",
                "the road runs along the coast",
                "the box holds twelve small cups",
            ),
            (
                "and the lift is next door",
                "and the office closes at five",
                "and the map shows both sides",
                "and the file has two parts",
                "and the light turns on later",
            ),
        ),
        "negative": (
            ("Oh do shut up", "What a silly remark", "You dull little clown", "Spare me your noise"),
            (
                "your idea is lazy and stupid",
                "nobody wants to hear your babble",
                "you sound like a broken kettle",
                "even a goat would know better",
                "your clumsy work bores us all",
                "you never get anything right anyway",
            ),
            (
                "and your friends laugh at you",
                "and you smell like old socks",
                "and I pity your poor teacher",
                "and the rest is plain rubbish",
                "and you should hide in shame",
            ),
        ),
    },
}


def _answer(rng: np.random.Generator, kind: str, element: str, mixing: float) -> str:
    """An answer of three parts, each of which is of another element with probability `mixing`."""
    others = [other for other in _ANSWERS[kind] if other != element]
    sources = [_pick(rng, others) if rng.random() < mixing else element for _ in range(3)]
    opening, middle, ending = (_pick(rng, _ANSWERS[kind][source][i]) for i, source in enumerate(sources))
    return f" {opening}. {middle[0].upper()}{middle[1:]}, {ending}."


def generate_preferences(
    n: int, rng: np.random.Generator, kind: str, preferred: str = "positive", noise: float = 0.1, mixing: float = 0.2
) -> pd.DataFrame:
    """`n` preference pairs of `kind` (``help`` or ``replies``) with a triple of answers to every prompt.

    `preferred` names the element that is chosen over its opposite (``negative`` for the toxic task); a share
    `noise` of the pairs has its label flipped (column ``noisy``), and each part of an answer is of another element
    with probability `mixing`, so that no single phrase decides. Help dialogues are whole transcripts in
    ``chosen`` and ``rejected``, as in HH-RLHF; replies have a ``prompt`` column, as in toxic-dpo.
    """
    other = "negative" if preferred == "positive" else "positive"
    rows = []
    for _ in range(n):
        if kind == "help":
            prompt = "".join(
                f"{HUMAN_TURN} {_pick(rng, _ASKS).format(task=_pick(rng, _TASKS))}{ASSISTANT_TURN}{filler}"
                for filler in ([" Tell me more, please.", ""] if rng.random() < 0.2 else [""])
            )
        else:
            prompt = _pick(rng, _REMARKS).format(topic=_pick(rng, _TOPICS))
        answers = {element: _answer(rng, kind, element, mixing) for element in ("positive", "neutral", "negative")}
        noisy = bool(rng.random() < noise)
        pair = (answers[other], answers[preferred]) if noisy else (answers[preferred], answers[other])
        row = {"prompt": prompt, "chosen": pair[0], "rejected": pair[1], **answers, "noisy": noisy}
        if kind == "help":
            row |= {"chosen": prompt + pair[0], "rejected": prompt + pair[1]}
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.drop(columns="prompt") if kind == "help" else frame


def split_prompt(chosen: str, rejected: str) -> tuple[str, str, str] | None:
    """Cut two transcripts at the last assistant turn of a common prompt: (prompt, answer, answer) or None.

    The prompt ends with the last ``\\n\\nAssistant:`` up to which both transcripts are equal, and both answers must
    be what follows their own last turn; the authors slice `rejected` at `chosen`'s length instead, which corrupts
    pairs with different prompts silently. Equal answers give None as well.
    """
    cut = chosen.rfind(ASSISTANT_TURN)
    if cut < 0 or rejected.rfind(ASSISTANT_TURN) != cut:
        return None
    cut += len(ASSISTANT_TURN)
    if chosen[:cut] != rejected[:cut] or chosen[cut:] == rejected[cut:]:
        return None
    return chosen[:cut], chosen[cut:], rejected[cut:]


def preference_pairs(frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Pairs as (prompt, chosen, rejected) answers plus the number of rows that give none.

    Rows with a ``prompt`` column are taken as they are; transcripts are cut by :func:`split_prompt`. Rows without a
    common prompt, with equal answers or with an empty one (HH-RLHF has some) are dropped. The frame's index is kept, so
    that further columns can be joined back.
    """
    if "prompt" in frame.columns:
        pairs = frame[["prompt", "chosen", "rejected"]]
        kept = pairs[pairs["chosen"] != pairs["rejected"]]
    else:
        cuts = [split_prompt(c, r) for c, r in zip(frame["chosen"], frame["rejected"], strict=True)]
        rows = {index: cut for index, cut in zip(frame.index, cuts, strict=True) if cut is not None}
        kept = pd.DataFrame.from_dict(rows, orient="index", columns=["prompt", "chosen", "rejected"])
    filled = (kept[["chosen", "rejected"]].apply(lambda answers: answers.str.strip()) != "").all(axis=1)
    kept = kept[filled]
    return kept, len(frame) - len(kept)


# --------------------------------------------------------------------------------------------------- any corpus


def documents(frame: pd.DataFrame) -> list[str]:
    """All texts of a corpus: its ``text`` column, or every prompt with each of its answers, prompt by prompt."""
    if "text" in frame:
        return list(frame["text"])
    pairs, _ = preference_pairs(frame)
    if "neutral" in frame:
        pairs = pairs.assign(neutral=frame["neutral"])
    return [prompt + answer for prompt, *answers in pairs.itertuples(index=False, name=None) for answer in answers]


def generate_corpus(
    kind: str, splits: Mapping[str, int], seed: int, options: Mapping[str, Any]
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, int]]]:
    """All splits of a generated corpus and their counts; `kind` is ``reviews``, ``help`` or ``replies``.

    One stream per corpus: the splits are consecutive draws, duplicates of an earlier split are dropped.
    """
    rng = np.random.default_rng(seed)
    options = dict(options)
    if kind == "reviews":
        vocabulary = sentiment_vocabulary(options.pop("words_per_class"), rng)
        frames = {name: generate_reviews(n, rng, vocabulary, **options) for name, n in splits.items()}
        key = ["text"]
    else:
        # Held-out labels stay clean: the accuracy on them is the truth that training noise is measured against.
        noise = options.pop("noise")
        frames = {
            name: generate_preferences(n, rng, kind, noise=noise if name == "train" else 0.0, **options)
            for name, n in splits.items()
        }
        key = ["chosen", "rejected"]
    return deduplicated(frames, key)


#: What becomes of the rows of a split, in the order in which they are dropped.
COUNTS = ("read", "empty", "duplicates", "in_earlier_split", "kept")


def deduplicated(
    frames: Mapping[str, pd.DataFrame], key: list[str]
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, int]]]:
    """`frames` without rows that are empty, occur twice in a split or already in an earlier one, and the counts.

    A row is empty where any of its `key` columns is missing or blank. Counts are by split, with the names of
    :data:`COUNTS`.
    """
    seen: set[tuple[str, ...]] = set()
    result, counts = {}, {}
    for name, frame in frames.items():
        text = frame[key].fillna("").astype(str)
        filled = (text.apply(lambda column: column.str.strip()) != "").all(axis=1)
        rows = pd.Series(list(text.itertuples(index=False, name=None)), index=frame.index)
        first = ~rows.duplicated()
        fresh = ~rows.isin(seen)
        keep = filled & first & fresh
        seen |= set(rows[keep])
        result[name] = frame[keep].reset_index(drop=True)
        counts[name] = {
            "read": len(frame), "empty": int((~filled).sum()), "duplicates": int((filled & ~first).sum()),
            "in_earlier_split": int((filled & first & ~fresh).sum()), "kept": int(keep.sum()),
        }  # fmt: skip
    return result, counts


def read_splits(
    files: Mapping[str, Sequence[Path]], columns: Mapping[str, str], test_share: float, seed: int
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, int]]]:
    """The splits of a corpus on disk, shuffled and without duplicates, and what became of their rows.

    Without a split ``test`` a share `test_share` of ``train`` is held out, by prompt where there are prompts, so that
    no prompt is in both. Training rows that are in ``test`` as well stay in training: the held-out split gives way.
    A split may come out empty; its cells then have rows that say why nothing was estimated.
    """
    frames = {
        split: pd.concat([read_file(path, columns) for path in paths], ignore_index=True)
        for split, paths in files.items()
    }
    frames = {split: frame.sample(frac=1, random_state=seed, ignore_index=True) for split, frame in frames.items()}
    if "test" not in frames:
        whole = frames["train"]
        groups = pd.factorize(_groups(whole))[0]
        held_out = groups >= (groups.max() + 1) * (1 - test_share)
        frames = {"train": whole[~held_out], "test": whole[held_out]}
    frames = {"train": frames["train"], "test": frames["test"]}
    result, counts = deduplicated(frames, sorted(columns))
    for split, frame in result.items():
        if frame.empty:
            read = counts[split]["read"]
            log.warning("split %r has no row left of %d: nothing of it can be estimated; check `columns`", split, read)
    return result, counts


def write_splits(
    frames: Mapping[str, pd.DataFrame],
    counts: Mapping[str, Mapping[str, int]],
    paths: Mapping[str, str | Path],
    stamp: Mapping[str, Any],
) -> None:
    """Write every split as Parquet and the `counts` as JSON, to ``paths[split]`` and ``paths["counts"]``."""
    for split, frame in frames.items():
        write_table(paths[split], frame, stamp)
    write_json(paths["counts"], counts, stamp)


def _groups(frame: pd.DataFrame) -> pd.Series:
    """What must not be torn apart by a split, for every row: its text, or its prompt (also of transcripts)."""
    if "text" in frame or "prompt" in frame:
        return frame["text" if "text" in frame else "prompt"]
    return preference_pairs(frame)[0]["prompt"].reindex(frame.index).fillna(frame["chosen"])


def read_file(path: str | Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """Read a JSONL (also .gz), CSV or Parquet file and rename its columns by `columns` {ours: theirs}.

    Raises ValueError naming the file and the format or the column that is missing.
    """
    path = Path(path)
    name = path.name.removesuffix(".gz")
    if name.endswith((".jsonl", ".json")):
        frame = pd.read_json(path, lines=True)
    elif name.endswith(".csv"):
        frame = pd.read_csv(path)
    elif name.endswith(".parquet"):
        frame = pd.read_parquet(path)
    else:
        raise ValueError(f"{path}: unknown format; expected .jsonl, .jsonl.gz, .csv or .parquet")
    return select_columns(frame, columns, str(path))


def select_columns(frame: pd.DataFrame, columns: Mapping[str, str], origin: str) -> pd.DataFrame:
    """The columns of `frame` that `columns` {ours: theirs} names, under our names."""
    missing = [theirs for theirs in columns.values() if theirs not in frame.columns]
    if missing:
        raise ValueError(
            f"{origin}: no column {missing[0]!r}; it has {', '.join(map(str, frame.columns))}."
            " Set `columns` of the corpus in the configuration."
        )
    return frame[list(columns.values())].set_axis(list(columns), axis=1)


def headline(frames: Mapping[str, pd.DataFrame]) -> str:
    """Rows of every split, in a line."""
    return ", ".join(f"{len(frame)} {split}" for split, frame in frames.items())
