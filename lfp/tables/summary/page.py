"""The page that a run opens on: verdicts in words, and the figures of the summary.

The page needs no other file. Opened by itself it follows the reader's choice of dark or light, and
its links lead to the tables beside it. A report takes it in as it is: there the links open the
tables within the report.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from lfp.files.addresses import labels
from lfp.reporting.escapes import plain
from lfp.statistics.records.base import counted
from lfp.tables.summary.questions import CONTRARY, FACT, NO, OPEN, YES

#: Short heads of the columns of the overview, by topic.
HEADS = {
    "goal": "goal reached", "output": "output follows", "inside": "MLPs follow",
    "locus": "weights of MLPs", "probe": "probe reads", "learned": "more than the base",
    "ablation": "related features matter", "ablation_limit": "layers matter",
    "planted": "planted truth", "planted_null": "and nothing else", "subject": "fair subject",
    "dictionaries": "sound dictionaries",
}  # fmt: skip
_SIGNS = {YES: "yes", NO: "no", CONTRARY: "contrary", OPEN: "open", FACT: ""}
_STYLE = """
.lfp { --ink: #1c1c1c; --soft: #5f5f5f; --line: #d9d9d9; --paper: #ffffff; color: var(--ink);
  background: var(--paper); font: 15px/1.5 system-ui, sans-serif; max-width: 72rem;
  margin: 0 auto; padding: 1rem; }
.lfp h1 { font-size: 1.5rem; margin: 0 0 .5rem; } .lfp h2 { font-size: 1.15rem; margin: 1.6rem 0
  .3rem; } .lfp p { margin: .4rem 0; max-width: 46rem; }
.lfp .wide { overflow-x: auto; } .lfp table { border-collapse: collapse; font-size: .85rem; }
.lfp th, .lfp td { border: 1px solid var(--line); padding: .25rem .35rem; text-align: left; }
.lfp thead th { font-weight: 600; vertical-align: bottom; }
.lfp ul { list-style: none; margin: 0; padding: 0; }
.lfp li { display: grid; grid-template-columns: 5.2rem 1fr; gap: .1rem .7rem; padding: .3rem 0;
  border-top: 1px solid var(--line); }
.lfp li b { display: block; font-weight: 600; } .lfp small { color: var(--soft); }
.lfp a { color: #0b63a5; } .lfp .sign { border-radius: .25rem; padding: 0 .4rem; font-size: .8rem;
  color: #000; white-space: nowrap; align-self: start; justify-self: start; }
.lfp .yes { background: #8fd3b6; } .lfp .no { background: #a9cdea; } .lfp .contrary {
  background: #f4b183; } .lfp .undecided { background: #dedede; }
.lfp figure { margin: 1rem 0; } .lfp figure img { max-width: 100%; background: #fff; }
.lfp .wide th:first-child { position: sticky; left: 0; background: var(--paper); }
@media (max-width: 700px) { .lfp figure img { max-width: none; } }
.lfp figcaption { color: var(--soft); font-size: .85rem; max-width: 60rem; }
@media (max-width: 480px) { .lfp li { grid-template-columns: 1fr; } }
@media (prefers-color-scheme: dark) { body.alone .lfp { --ink: #ececec; --soft: #b0b0b0;
  --line: #474747; --paper: #161616; } body.alone .lfp a { color: #79bdf2; }
  body.alone { background: #161616; } }
body.alone { margin: 0; }
"""


def page(
    answers: pd.DataFrame, figures: Mapping[str, tuple[Path, str]], latents: Sequence[str] = ()
) -> str:
    """The summary as a page of HTML that needs no other file.

    Parameters
    ----------
    answers
        The table of verdicts (:func:`lfp.tables.summary.answers.verdicts`).
    figures
        Path of the drawing (SVG) and caption of every figure, by its name.
    latents
        Folders with the pages of the latents of a cell (:mod:`lfp.pages`), below ``results/``.
    """
    cells = [(f"{m}, {t}", rows) for (m, t), rows in answers.groupby(["model", "task"], sort=False)]
    pages: dict[str, list[str]] = {}
    for folder in latents:
        cell = labels(folder)
        pages.setdefault(f"{cell['model']}, {cell['task']}", []).append(folder)
    body = "\n".join(
        [
            "<h1>What the feedback taught</h1>",
            _lead(answers),
            _overview(cells),
            *(_figure(name, path, caption) for name, (path, caption) in figures.items()),
            *(_cell(name, rows, pages.get(name, [])) for name, rows in cells),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>Summary</title></head>\n<body class="alone">\n<style>{_STYLE}</style>\n'
        f'<div class="lfp">\n{body}\n</div>\n</body></html>\n'
    )


def _lead(answers: pd.DataFrame) -> str:
    signs = " ".join(_sign(answer) for answer in (YES, NO, OPEN, CONTRARY))
    count = len(answers.groupby(["model", "task"]))
    pairs = f"{count} {'pair' if count == 1 else 'pairs'}"
    return (
        f"<p>Verdicts on the policies of {pairs} of model and task, each from one row of a"
        f" table. {signs}: yes needs the interval on the side in question, and the corrected test"
        " where that row has one; no needs the interval within a margin of nothing; open is"
        " neither, and contrary is a yes of the other side. Means over seeds and shares of the"
        " lesson have an interval and no test, and questions are not corrected for each other."
        " Gates are passed (yes) or not (no). Brackets are intervals, of 95 % unless the"
        " configuration says otherwise.</p>"
    )


def _sign(answer: str, title: str = "") -> str:
    hint = f' title="{_text(title)}"' if title else ""
    return f'<span class="sign {answer}"{hint}>{_SIGNS[answer]}</span>'


def _text(value: object) -> str:
    return escape(plain(str(value)))


def _overview(cells: list[tuple[str, pd.DataFrame]]) -> str:
    """A line per model and task, a column per topic that has a verdict."""
    topics = [t for t in HEADS if any((rows["topic"] == t).any() for _, rows in cells)]
    head = "".join(f"<th>{HEADS[topic]}</th>" for topic in topics)
    lines = []
    for name, rows in cells:
        by_topic = rows.set_index("topic")
        signs = [
            _sign(by_topic.at[topic, "answer"], by_topic.at[topic, "sentence"])
            if topic in by_topic.index
            else ""
            for topic in topics
        ]
        line = "".join(f"<td>{sign}</td>" for sign in signs)
        lines.append(f"<tr><th>{_text(name)}</th>{line}</tr>")
    body = "\n".join(lines)
    return (
        f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(name: str, rows: pd.DataFrame, folders: Sequence[str]) -> str:
    items = "\n".join(_item(row) for row in rows.to_dict("records"))
    return f"<h2>{_text(name)}</h2>\n<ul>\n{items}\n</ul>{_latents(folders)}"


def _latents(folders: Sequence[str]) -> str:
    """Links to the pages of the latents; the page and a report lie beside the folders of cells."""
    links = []
    for folder in folders:
        cell, place = labels(folder), _text(folder.removeprefix("results/"))
        text = _text(f"seed {cell['seed']}, {cell['sae']}")
        links.append(f'<a href="{place}/index.html">{text}</a>')
    if not links:
        return ""
    return f"\n<p><small>Its explained latents, page by page: {'; '.join(links)}</small></p>"


def _item(row: Mapping[str, Any]) -> str:
    basis = counted(row["n"], row["unit"]) if row["n"] else "no instance"
    return (
        f"<li>{_sign(row['answer'])}<span><b>{_text(row['question'])}</b>"
        f"{_text(row['sentence'])} <small>{_text(basis)}, {_link(row['table'])}</small></span></li>"
    )


def _link(table: str) -> str:
    """A link to a table: the file beside the page, or, in a report, the table there."""
    path = json.dumps(f"results/tables/{table}.html")
    script = (
        "if (typeof app !== 'undefined' && results[PATH]) { app.setView({content: 'html',"
        " contentPath: results[PATH].data_uri, resultPath: PATH}); return false; }"
    ).replace("PATH", path)
    return f'<a href="tables/{_text(table)}.html" onclick="{escape(script)}">{_text(table)}</a>'


def _figure(name: str, path: Path, caption: str) -> str:
    drawing = base64.b64encode(path.read_bytes()).decode()
    says = f"{name}: {caption.partition('. ')[0]}"
    return (
        f'<figure><div class="wide"><img alt="{_text(says)}" '
        f'src="data:image/svg+xml;base64,{drawing}"></div>\n'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )
