"""Tables as CSV, Parquet, Markdown, LaTeX and HTML.

Text from data or models is escaped wherever it is rendered.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lfp.files.artefacts import write_table
from lfp.files.writing import aside
from lfp.tables.pages.columns import shown
from lfp.tables.pages.page import Section, first_sentence, page

FORMATS = ("csv", "parquet", "md", "tex", "html")

#: Said of a table without rows.
NO_ROWS = "No cell of the configuration has anything to show in this table."
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text).replace("\n", " ")


def _markdown(text: str) -> str:
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|" else c for c in text)
    return escaped.replace("\n", " ")


def to_markdown(frame: pd.DataFrame, caption: str) -> str:
    """A pipe table under its caption."""
    lines = [
        caption,
        "",
        "| " + " | ".join(map(_markdown, frame.columns)) + " |",
        "|" + " --- |" * frame.shape[1],
    ]
    lines += [
        "| " + " | ".join(_markdown(shown(v)) for v in row) + " |"
        for row in frame.itertuples(index=False)
    ]
    return "\n".join(lines) + "\n"


def to_latex(frame: pd.DataFrame, caption: str, label: str) -> str:
    """A longtable with booktabs rules."""
    body = [
        " & ".join(_latex(shown(v)) for v in row) + r" \\" for row in frame.itertuples(index=False)
    ]
    head = " & ".join(_latex(str(column)) for column in frame.columns) + r" \\"
    lines = [
        r"\begin{longtable}{" + "l" * frame.shape[1] + "}",
        rf"\caption{{{_latex(caption)}}}\label{{tab:{label}}}\\",
    ]
    lines += [
        r"\toprule",
        head,
        r"\midrule",
        r"\endhead",
        *body,
        r"\bottomrule",
        r"\end{longtable}",
    ]
    return "\n".join(lines) + "\n"


def to_html(frame: pd.DataFrame, caption: str) -> str:
    """A page with one table, its decisive columns first; one without rows says so in their place.

    The title is the caption's first sentence, whether there are rows or not.
    """
    return page(caption, [Section(frame, text=NO_ROWS if frame.empty else "")])


def write_formats(
    frame: pd.DataFrame, paths: Mapping[str, str | Path], caption: str, stamp: Mapping[str, Any]
) -> None:
    """Write `frame` to every path of `paths` {format: path}.

    Formats are those of :data:`FORMATS`. The caption of a table without rows says so behind its
    first sentence, which names the table.
    """
    name = Path(paths["csv"]).stem
    title, rest = first_sentence(caption)
    whole = f"{title} {NO_ROWS} {rest}".rstrip() if frame.empty else caption
    texts = {
        "csv": frame.to_csv(index=False, lineterminator="\n"),
        "md": to_markdown(frame, whole),
        "tex": to_latex(frame, whole, name),
        "html": to_html(frame, caption),
    }
    for kind, path in paths.items():
        if kind == "parquet":
            write_table(path, frame, stamp)
        else:
            with aside(path) as temporary:
                temporary.write_text(texts[kind], encoding="utf-8")
