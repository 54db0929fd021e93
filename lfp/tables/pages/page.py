"""A page of tables as HTML, in one file that loads nothing.

Text of data and models is escaped, and the policy of the page lets no script run but its own.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lfp.tables.pages.columns import Arranged, arranged, is_interval, shown
from lfp.tables.pages.parts import SCRIPT, STYLE, policy

#: A text cell with more characters than these takes several lines.
_LONG = 40


@dataclass(frozen=True)
class Section:
    """A table of a page.

    Parameters
    ----------
    frame
        The rows.
    title
        The heading; none where a page has one table alone.
    text
        Whole sentences between the heading and the table.
    decisive
        The columns that are shown first; without them they are chosen
        (:func:`lfp.tables.pages.columns.arranged`).
    """

    frame: pd.DataFrame
    title: str = ""
    text: str = ""
    decisive: Sequence[str] = ()


def page(caption: str, sections: Sequence[Section]) -> str:
    """A page with a table for each of the `sections`.

    The first sentence of the caption is its title; the rest opens on demand.
    """
    tables = [arranged(section.frame, section.decisive) for section in sections]
    style = STYLE + "".join(
        f"#all{number}:not(:checked)~.scroll tr>:nth-child(n+{table.first + 1}){{display:none}}\n"
        for number, table in enumerate(tables)
        if _has_more(table)
    )
    title, rest = first_sentence(caption)
    more = f"<details><summary>How to read it</summary><p>{html.escape(rest)}</p></details>"
    body = "\n".join(
        _section(section, table, number)
        for number, (section, table) in enumerate(zip(sections, tables, strict=True))
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy(style)}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style}</style></head>"
        f'<body><header><p class="lead">{html.escape(title)}</p>{more if rest else ""}</header>\n'
        f"{body}\n<script>{SCRIPT}</script></body></html>\n"
    )


def first_sentence(caption: str) -> tuple[str, str]:
    """The first sentence of a caption, and the others."""
    title, *rest = re.split(r"(?<=[.?])\s+", caption, maxsplit=1)
    return title, "".join(rest)


def _has_more(table: Arranged) -> bool:
    return table.frame.shape[1] > table.first


def _section(section: Section, table: Arranged, number: int) -> str:
    """A heading, what all rows have alike, the controls, and the table."""
    lines = ["<section>"]
    if section.title:
        lines.append(f"<h2>{html.escape(section.title)}</h2>")
    if section.text:
        lines.append(f"<p>{html.escape(section.text)}</p>")
    lines += _alike(table)
    if _has_more(table):
        count = table.frame.shape[1]
        lines.append(
            f'<input class="all" type="checkbox" id="all{number}">'
            f'<label for="all{number}">all {count} columns</label>'
        )
    lines += [
        '<input type="search" placeholder="search rows" aria-label="search rows" hidden>',
        f'<output aria-live="polite">{len(table.frame)} rows</output>',
        f'<div class="scroll" tabindex="0">{_table(table.frame)}</div></section>',
    ]
    return "\n".join(lines)


def _alike(table: Arranged) -> list[str]:
    """What all rows have alike, in a sentence for the values and one for what none has."""
    values = [
        f"<b>{html.escape(name)}</b> <span>{html.escape(text)}</span>"
        for name, text in table.same.items()
        if text
    ]
    empty = [f"<b>{html.escape(name)}</b>" for name, text in table.same.items() if not text]
    lines = []
    if values:
        lines.append(f'<p class="same">The same in all rows: {"; ".join(values)}.</p>')
    if empty:
        lines.append(f'<p class="same">Empty in all rows: {", ".join(empty)}.</p>')
    return lines


def _table(frame: pd.DataFrame) -> str:
    """The table itself: heads are buttons that sort, numbers stand to the right."""
    heads = "".join(
        f'<th scope="col"{_kind(frame[name])}>'
        f'<button type="button">{html.escape(str(name))}</button></th>'
        for name in frame.columns
    )
    body = "\n".join(
        f"<tr>{''.join(map(_cell, values))}</tr>" for values in frame.itertuples(index=False)
    )
    return f"<table><thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def _kind(column: pd.Series) -> str:
    """The class of a column's head."""
    numbers = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return ' class="n"' if numbers else ""


def _cell(value: Any) -> str:
    """A cell with the class of its kind: a number, an interval, or text of several lines."""
    text = shown(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        kind = ' class="n"'
    elif is_interval(text):
        kind = ' class="i"'
    else:
        kind = ' class="t"' if len(text) > _LONG else ""
    return f"<td{kind}>{html.escape(text)}</td>"
