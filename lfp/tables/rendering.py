"""Tables as CSV, Parquet, Markdown, LaTeX and HTML.

Text from data or models is escaped wherever it is rendered.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lfp.files.artefacts import write_table
from lfp.files.writing import aside
from lfp.reporting.escapes import plain

FORMATS = ("csv", "parquet", "md", "tex", "html")

#: Said of a table without rows.
NO_ROWS = "No cell of the configuration has anything to show in this table."
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip
_STYLE = (
    "body{font:14px system-ui,sans-serif;margin:1rem}table{border-collapse:collapse}"
    "caption{caption-side:top;text-align:left;max-width:60rem;padding-bottom:.6rem}"
    "th,td{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}"
    "th{position:sticky;top:0;background:#fff}td{white-space:nowrap}"
    "td.text{white-space:normal;min-width:20rem}"
    "td.number{text-align:right;font-variant-numeric:tabular-nums}"
)


def _cell(value: Any) -> str:
    """A value as people read it.

    It has four significant digits, is empty where there is none, and has control characters written
    out.
    """
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return plain(str(value))


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
        "| " + " | ".join(_markdown(_cell(v)) for v in row) + " |"
        for row in frame.itertuples(index=False)
    ]
    return "\n".join(lines) + "\n"


def to_latex(frame: pd.DataFrame, caption: str, label: str) -> str:
    """A longtable with booktabs rules."""
    body = [
        " & ".join(_latex(_cell(v)) for v in row) + r" \\" for row in frame.itertuples(index=False)
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
    """A page with one table."""

    def cell(value: Any) -> str:
        text = _cell(value)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        kind = "number" if number else "text" if len(text) > 30 else ""
        return f'<td class="{kind}">{html.escape(text)}</td>'

    head = "".join(f"<th>{html.escape(str(column))}</th>" for column in frame.columns)
    body = "\n".join(
        f"<tr>{''.join(map(cell, values))}</tr>" for values in frame.itertuples(index=False)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(caption)}</title><style>{_STYLE}</style></head>"
        f"<body><table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n"
        "</tbody></table></body></html>\n"
    )


def write_formats(
    frame: pd.DataFrame, paths: Mapping[str, str | Path], caption: str, stamp: Mapping[str, Any]
) -> None:
    """Write `frame` to every path of `paths` {format: path}.

    Formats are those of :data:`FORMATS`. The caption of a table without rows says so first.
    """
    name = Path(paths["csv"]).stem
    if frame.empty:
        caption = f"{NO_ROWS} {caption}"
    texts = {
        "csv": frame.to_csv(index=False, lineterminator="\n"),
        "md": to_markdown(frame, caption),
        "tex": to_latex(frame, caption, name),
        "html": to_html(frame, caption),
    }
    for kind, path in paths.items():
        if kind == "parquet":
            write_table(path, frame, stamp)
        else:
            with aside(path) as temporary:
                temporary.write_text(texts[kind], encoding="utf-8")
