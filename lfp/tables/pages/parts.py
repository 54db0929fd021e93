"""The style and the script of a page of tables, and the policy that lets no other run.

Both stand in the page itself. The browser is told their digests, so that it runs this script alone,
whatever text of data or models a page shows.
"""

from __future__ import annotations

import base64
import hashlib

#: Colours by the reader's setting, light or dark. A table scrolls in a box of its own, under its
#: heads; on a narrow screen nothing else moves sideways.
STYLE = """
:root{color-scheme:light dark;--page:#fff;--text:#1d1f23;--soft:#59606b;--line:#d9dce1;
--head:#f1f3f6;--link:#0b57b0}
@media (prefers-color-scheme:dark){:root{--page:#15171b;--text:#e6e8ec;--soft:#a4abb6;
--line:#343a43;--head:#20242b;--link:#8ab8f5}}
*{box-sizing:border-box}
body{margin:0;padding:1rem;background:var(--page);color:var(--text);
font:14px/1.45 system-ui,sans-serif;overflow-wrap:break-word}
header,section>p,section>h2{max-width:60rem}
h2{font-size:1.1rem;margin:1.6rem 0 .3rem}
p{margin:.3rem 0}
.lead{font-size:1.05rem;font-weight:600}
.same{color:var(--soft)}.same b{color:var(--text);font-weight:600}
summary,label{cursor:pointer;color:var(--link)}
section>label,section>input,output{display:inline-block;margin:.5rem .7rem .5rem 0}
section>input.all{margin-right:.3rem}
output{color:var(--soft)}
input[type=search]{font:inherit;width:16rem;max-width:60vw;padding:.25rem .5rem;
color:inherit;background:var(--page);border:1px solid var(--soft);border-radius:.3rem}
.scroll{overflow:auto;max-height:85vh;border:1px solid var(--line)}
table{border-collapse:separate;border-spacing:0}
th,td{padding:.2rem .5rem;border-bottom:1px solid var(--line);text-align:left;
vertical-align:top;white-space:nowrap;font-size:13px}
th{position:sticky;top:0;background:var(--head);z-index:1}
th button{all:unset;cursor:pointer;font-weight:600}
th button:focus-visible{outline:2px solid var(--link);outline-offset:2px}
th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
.n,.i{font-variant-numeric:tabular-nums}
.n{text-align:right}
.t{white-space:normal;min-width:min(18rem,50vw)}
@media (max-width:75rem){td:not(.n,.i){white-space:normal}}
@media (max-width:40rem){body{padding:.6rem}th,td{padding:.2rem .35rem}}
tbody tr:hover{background:var(--head)}
[hidden]{display:none!important}
"""

#: Sorting by a head and searching in the rows of every section, which have what all of them have
#: alike as well, though it stands above them alone. Numbers go by their size, also in
#: front of an interval or as its lower end, before text; empty cells are last in both directions.
SCRIPT = """
"use strict";
(() => {
  const number = /^\\[?([-+]?(?:\\d+\\.?\\d*|\\.\\d+)(?:e[-+]?\\d+)?)(?:,? [^\\]]*\\])?$/i;
  const text = new Intl.Collator(undefined, {numeric: true});
  const compare = (a, b, sign) => {
    if (a.text === "" || b.text === "") return (a.text === "") - (b.text === "");
    if (a.value !== null && b.value !== null) return sign * (a.value - b.value);
    if (a.value !== null || b.value !== null) return (a.value === null) - (b.value === null);
    return sign * text.compare(a.text, b.text);
  };
  for (const section of document.querySelectorAll("section")) {
    const body = section.querySelector("tbody");
    const search = section.querySelector("input[type=search]");
    if (!body || !search) continue;
    const rows = [...body.rows], said = section.querySelector("output");
    const heads = [...section.querySelectorAll("thead th")];
    const alike = [...section.querySelectorAll(".same span")];
    const whole = rows.map(row =>
      [...row.cells, ...alike].map(cell => cell.textContent).join(" ").toLowerCase());
    const filter = () => {
      const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, index) => {
        row.hidden = !words.every(word => whole[index].includes(word));
        shown += !row.hidden;
      });
      said.textContent = words.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
    };
    const sort = index => {
      const head = heads[index];
      const falling = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const keyed = rows.map(row => {
        const cell = row.cells[index].textContent, match = number.exec(cell);
        return {row, text: cell, value: match ? Number(match[1]) : null};
      });
      keyed.sort((a, b) => compare(a, b, falling ? -1 : 1));
      for (const {row} of keyed) body.append(row);
    };
    heads.forEach((head, index) =>
      head.querySelector("button").addEventListener("click", () => sort(index)));
    search.addEventListener("input", filter);
    search.hidden = false;
    filter();
  }
})();
"""


def policy(style: str) -> str:
    """The policy of a page that has a `style` and :data:`SCRIPT`, and loads nothing."""
    digests = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, SCRIPT)
    ]
    return (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}';"
        " base-uri 'none'; form-action 'none'"
    )
