"""Generated help dialogues and replies: a better, a neutral and a worse answer of equal length to
every prompt.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lfp.organisms.reviews import pick
from lfp.texts.corpora import ASSISTANT_TURN, HUMAN_TURN

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


#: Three parts of an answer; within a part all variants have the same number of words, so that
#: answers of every kind match in length.
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
            (
                "Trains run every hour",
                "The river is long",
                "Paper comes from wood",
                "Glass holds some water",
            ),
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
            (
                "Oh do shut up",
                "What a silly remark",
                "You dull little clown",
                "Spare me your noise",
            ),
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
    sources = [pick(rng, others) if rng.random() < mixing else element for _ in range(3)]
    opening, middle, ending = (
        pick(rng, _ANSWERS[kind][source][i]) for i, source in enumerate(sources)
    )
    return f" {opening}. {middle[0].upper()}{middle[1:]}, {ending}."


def generate_preferences(
    n: int,
    rng: np.random.Generator,
    kind: str,
    preferred: str = "positive",
    noise: float = 0.1,
    mixing: float = 0.2,
) -> pd.DataFrame:
    """`n` preference pairs of `kind` (``help`` or ``replies``) with a triple of answers to every
    prompt.

    `preferred` names the element that is chosen over its opposite (``negative`` for the toxic
    task); a share `noise` of the pairs has its label flipped (column ``noisy``), and each part of
    an answer is of another element with probability `mixing`, so that no single phrase decides.
    Help dialogues are whole transcripts in ``chosen`` and ``rejected``, as in HH-RLHF; replies have
    a ``prompt`` column, as in toxic-dpo.
    """
    other = "negative" if preferred == "positive" else "positive"
    rows = []
    for _ in range(n):
        if kind == "help":
            prompt = "".join(
                f"{HUMAN_TURN} {pick(rng, _ASKS).format(task=pick(rng, _TASKS))}"
                f"{ASSISTANT_TURN}{filler}"
                for filler in ([" Tell me more, please.", ""] if rng.random() < 0.2 else [""])
            )
        else:
            prompt = pick(rng, _REMARKS).format(topic=pick(rng, _TOPICS))
        answers = {
            element: _answer(rng, kind, element, mixing)
            for element in ("positive", "neutral", "negative")
        }
        noisy = bool(rng.random() < noise)
        pair = (
            (answers[other], answers[preferred]) if noisy else (answers[preferred], answers[other])
        )
        row = {"prompt": prompt, "chosen": pair[0], "rejected": pair[1], **answers, "noisy": noisy}
        if kind == "help":
            row |= {"chosen": prompt + pair[0], "rejected": prompt + pair[1]}
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.drop(columns="prompt") if kind == "help" else frame
