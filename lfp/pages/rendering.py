"""Pages in HTML of the latents of a cell, and their index, which sorts and filters.

A page holds all that it needs, and its policy of content forbids a browser to load anything or to
run a script but the index's own. The templates, the style and that script are in
``rendering.yaml``. All text is escaped; control characters of data are written out first.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from lfp.pages import drawing
from lfp.pages.latents import Latent
from lfp.pages.readings import ELEMENTS
from lfp.reporting.escapes import plain

#: The index of a folder of pages.
INDEX = "index.html"
#: Characters that would not be seen, and what stands for them.
_SIGNS = {"\n": "\u21b5", "\t": "\u21e5"}


@dataclass(frozen=True)
class Column:
    """A column of the index: its name, what its values are, and what they mean.

    ``kind`` is ``number``, ``choice`` (one of few values, which a list offers) or ``text``.
    """

    name: str
    kind: str
    meaning: str


COLUMNS = (
    Column("layer", "choice", "The layer of the latent."),
    Column("latent", "number", "The number of the latent in its layer's dictionary."),
    Column("related", "choice", "Whether the explainer called it related to the feedback."),
    Column("explanation", "text", "The explanation by every explainer."),
    Column("detection", "number", "Balanced accuracy of the explanation on held-out excerpts."),
    Column("fuzzing", "number", "The same for marked words in active excerpts."),
    Column("match", "number", "Cosine of the latent with its match in the largest dictionary."),
    Column("frequency", "number", "Share of tokens of training text with an activation above 0."),
    Column("largest", "number", "The largest activation on training text."),
    Column("policy active", "number", "Share of the triples' elements it is active on, policy."),
    Column("base active", "number", "The same in the base."),
    Column("policy \u2212 base", "number", "Difference of the mean activations on them."),
    Column("sets", "choice", "Arms of ablation whose set has the latent."),
)


@dataclass(frozen=True)
class About:
    """What all pages of a cell say: its ``cell``, its ``dictionary``, and the task's feedback.

    ``elements`` names the elements of triples: words of a reward, or answers of preferences.
    """

    cell: str
    dictionary: str
    feedback: str

    @property
    def elements(self) -> str:
        """What an element of a contrast triple is."""
        return "words" if self.feedback == "reward" else "answers"


def write_pages(folder: Path, latents: Sequence[Latent], about: About) -> None:
    """Write a page for each of `latents` and their index into `folder`."""
    environment = _environment()
    page, index = environment.get_template("page"), environment.get_template("index")
    around = [None, *latents, None]
    for before, latent, after in zip(around, latents, around[2:], strict=False):
        text = page.render(latent=latent, before=before, after=after, about=about, **_drawn(latent))
        (folder / latent.page).write_text(text, encoding="utf-8")
    rows = [(latent, index_row(latent)) for latent in latents]
    (folder / INDEX).write_text(index.render(rows=rows, about=about), encoding="utf-8")


def index_row(latent: Latent) -> list[Any]:
    """The values of a latent in the :data:`COLUMNS` of the index; None where there is none."""
    row = latent.main.row
    texts = [one.row["explanation"] for one in latent.explained if one.row["explanation"]]
    sets = dict.fromkeys(one.arm for one in latent.sets)
    return [
        latent.layer, latent.number, "yes" if row["related"] else "no", " | ".join(texts),
        latent.main.score("detection"), latent.main.score("fuzzing"),
        row["cosine"], row["frequency"], row["max_activation"],
        latent.shares.get("policy"), latent.shares.get("base"), latent.change,
        ", ".join(sets) or "none",
    ]  # fmt: skip


def number(value: float | None) -> str:
    """A number with three significant digits, or a dash where there is none."""
    if missing(value):
        return "\u2013"
    if isinstance(value, int):
        return str(value)
    return f"{value:.3g}".replace("-", "\u2212")


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{number(100 * share)} %"


def missing(value: Any) -> bool:
    """Whether there is no value."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def visible(text: str) -> str:
    """`text` with signs for newlines and tabs, and other control characters written out."""
    for character, sign in _SIGNS.items():
        text = text.replace(character, sign)
    return plain(text)


def _drawn(latent: Latent) -> dict[str, Any]:
    """The excerpts of a latent with their highlighting, and its histogram."""
    top = [max(one.activations, default=0) for one in latent.excerpts if one.kind == "top"]
    largest = max(top, default=0) or 1.0
    shown: dict[str, list] = {"top": [], "random": []}
    for one in latent.excerpts:
        pieces = drawing.highlighted(one.tokens, one.activations, largest)
        shown[one.kind].append((max(one.activations, default=0), pieces))
    counts = latent.histogram["counts"] if latent.histogram else []
    return {"excerpts": shown, "bars": drawing.bars(list(counts))}


def _digest(text: str) -> str:
    """A text as a policy of content names it: by its SHA-256."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _environment() -> Environment:
    """The templates, with the policy of content that lets in their own style and script alone."""
    path = Path(__file__).with_suffix(".yaml")
    templates = yaml.safe_load(path.read_text(encoding="utf-8"))
    style, script = templates["style"].strip(), templates["script"].strip()
    environment = Environment(
        loader=DictLoader({name: templates[name] for name in ("frame", "page", "index")}),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)};"
        " base-uri 'none'; form-action 'none'"
    )
    environment.globals |= {
        "style": Markup(style), "script": Markup(script), "policy": policy,
        "columns": COLUMNS, "elements": ELEMENTS, "index_page": INDEX,
        "width": drawing.WIDTH, "height": drawing.HEIGHT,
    }  # fmt: skip
    environment.filters |= {"number": number, "percent": percent, "visible": visible}
    environment.tests |= {"missing": missing}
    return environment
