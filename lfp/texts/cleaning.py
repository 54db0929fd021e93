"""The declared cleaning of a corpus: what is done to every text, and to how many.

Nothing is done that a configuration does not name (``clean`` of a corpus).
"""

from __future__ import annotations

import html
import logging
import re
import unicodedata
import warnings
from collections.abc import Callable
from functools import cache

import pandas as pd

from lfp.settings import Clean

log = logging.getLogger(__name__)

#: Tags within a line. A name that is neither here nor in :func:`_parting` is no tag but text.
_INLINE = frozenset((
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em",
    "font", "i", "ins", "kbd", "label", "mark", "q", "rp", "rt", "ruby", "s", "samp", "small",
    "span", "strike", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr",
))  # fmt: skip
#: Tags that part words, beside those that Beautiful Soup lists as blocks.
_PARTING = frozenset((
    "area", "audio", "base", "body", "button", "caption", "center", "col", "colgroup", "details",
    "dialog", "dir", "embed", "frame", "frameset", "head", "hgroup", "html", "iframe", "img",
    "input", "legend", "link", "map", "menu", "meta", "object", "optgroup", "option", "param",
    "picture", "select", "source", "summary", "tbody", "td", "textarea", "th", "thead", "title",
    "tr", "track",
))  # fmt: skip
#: Attributes that stand without a value. Another word behind a name is text: ``a <b and c> d``.
_FLAGS = (
    "allowfullscreen|async|autofocus|autoplay|border|checked|compact|controls|default|defer"
    "|disabled|hidden|ismap|loop|multiple|muted|noshade|novalidate|nowrap|open|readonly|required"
    "|reversed|selected"
)
_ATTRIBUTE = (
    r"""\s+(?:[A-Za-z_:][\w:.-]*\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>=]+)"""
    rf"|(?:{_FLAGS})(?=[\s/>]))"
)
#: What may be a tag, comments, and scripts with what they hold. Another ``<`` is text.
_MARKUP = re.compile(
    r"<!--.*?-->|<!doctype\s[^<>]*>|<(?P<raw>script|style)\b[^<>]*>.*?</(?P=raw)\s*>"
    rf"|</?(?P<name>[A-Za-z][A-Za-z0-9]*)(?:{_ATTRIBUTE})*\s*(?:/\s*)?>",
    re.DOTALL | re.IGNORECASE,
)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]*);")
#: Stands for a tag that parts words, until neighbours become one line break.
_BREAK = "\0"


def cleaned(frame: pd.DataFrame, clean: Clean) -> tuple[pd.DataFrame, int]:
    """`frame` with its texts cleaned, and the number of rows in which a text changed."""
    steps = _steps(clean)
    if not steps:
        return frame, 0
    result = frame.copy()
    for name, step in steps.items():
        before = result
        result = result.apply(lambda texts, step=step: texts.map(step, na_action="ignore"))
        changed = int(changed_rows(before, result).sum())
        log.info("clean.%s changed %d of %d rows", name, changed, len(frame))
    return result, int(changed_rows(frame, result).sum())


def changed_rows(before: pd.DataFrame, after: pd.DataFrame) -> pd.Series:
    """Whether a text of each row is another one behind a step of cleaning."""
    return (before.fillna("") != after.fillna("")).any(axis=1)


def _steps(clean: Clean) -> dict[str, Callable[[str], str]]:
    """The functions of a cleaning by the names of their settings, in the order of their use."""
    steps: dict[str, Callable[[str], str]] = {}
    if clean.html:
        steps["html"] = without_html
    if clean.unicode:
        form = clean.unicode.upper()
        steps["unicode"] = lambda text: unicodedata.normalize(form, text)
    if clean.lowercase:
        steps["lowercase"] = str.lower
    return steps


def without_html(text: str) -> str:
    """`text` without tags and comments of HTML, with line breaks for blocks and ``<br>``.

    Entities that end in a semicolon become their characters. What is no tag of HTML stays, word by
    word: ``I <3 it``, ``a < b``, ``<sarcasm>``, ``AT&T``.
    """
    if "<" in text:
        text = _without_tags(text)
    text = _ENTITY.sub(lambda match: html.unescape(match.group()), text)
    return text.replace("\r\n", "\n").replace("\r", "\n")  # ``&#13;`` writes a line end


def _without_tags(text: str) -> str:
    from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning

    parting, pieces, end = _parting(), [], 0
    for match in _MARKUP.finditer(text):
        name = (match["name"] or "").lower()
        if name and name != "br" and name not in parting and name not in _INLINE:
            continue
        pieces.append(html.escape(text[end : match.start()], quote=False))
        # The break stands beside the tag: an end tag without its start has no place in a tree.
        pieces.append("\n" if name == "br" else _BREAK if name in parting else "")
        pieces.append(match.group())
        end = match.end()
    pieces.append(html.escape(text[end:], quote=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
        plain = BeautifulSoup("".join(pieces), "html.parser").get_text()
    return re.sub(f"{_BREAK}+", "\n", plain.strip(_BREAK))


@cache
def _parting() -> frozenset[str]:
    from bs4.builder import HTMLTreeBuilder

    return frozenset(HTMLTreeBuilder.DEFAULT_BLOCK_ELEMENTS) | _PARTING
