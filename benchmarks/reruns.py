"""Which rules an edit of each file of lfp reruns, as the table of docs/rebuilding.md.

python -m benchmarks.reruns            # print the table
python -m benchmarks.reruns --write    # and put it into docs/rebuilding.md

A rule reruns where its script needs the file; what follows from its results reruns where they come
out different.
"""

from __future__ import annotations

import argparse
import re

from lfp.feedback.rewards import REWARDS
from lfp.figures.catalogue import FIGURES
from lfp.running.digest import ROOT, closure, data_file, module_path, registries_of
from lfp.sae.architectures import ARCHITECTURES
from lfp.tables.catalogue import TABLES

PAGE = ROOT / "docs" / "rebuilding.md"
BEGIN, END = "<!-- begin: python -m benchmarks.reruns -->", "<!-- end -->"


def rules() -> list[str]:
    """The rules that run a script of their name."""
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.smk"))
    names = set(re.findall(r"^(?:rule|checkpoint|use rule \w+ as) (\w+)", text, re.M))
    return sorted(name for name in names if module_path(f"workflow_scripts.{name}"))


def reruns() -> dict[str, list[str]]:
    """The rules that an edit of a file reruns, by the file's path: all modules of lfp that say
    more than a docstring, and their data files.
    """
    needs = {name: set(closure(f"workflow_scripts.{name}")) for name in rules()}
    # Jobs load their own table, figure, reward and architecture, which catalogues name.
    entries = {"table": [table.rows for table in TABLES.values()]}
    entries["figure"] = [figure.draw for figure in FIGURES.values()]
    registries = {"lfp.feedback.rewards": REWARDS, "lfp.sae.architectures": ARCHITECTURES}
    for name in needs:
        for registry in registries_of(f"workflow_scripts.{name}"):
            entries.setdefault(name, []).extend(
                map(registries[registry].entry, registries[registry])
            )
    for name, of_rule in entries.items():
        for entry in of_rule:
            needs[name] |= set(closure(entry.partition(":")[0]))
    result = {}
    for path in sorted((ROOT / "lfp").rglob("*.py")):
        relative = path.relative_to(ROOT)
        parts = relative.with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if parts[-1] == "__init__" and len(path.read_text(encoding="utf-8").splitlines()) <= 1:
            continue
        needing = [name for name, modules in needs.items() if module in modules]
        result[relative.as_posix()] = needing
        data = data_file(path)
        if data is not None:
            result[data.relative_to(ROOT).as_posix()] = needing
    return result


def markdown() -> str:
    """The table, most rules first; files that rerun nothing stand in one row."""
    found, every = reruns(), rules()
    lines = ["| an edit of | reruns | rules |", "|---|---|---|"]
    for path, names in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        others = [name for name in every if name not in names]
        few = ", ".join(names) if len(names) <= len(others) else f"all but {', '.join(others)}"
        if names:
            lines.append(f"| `{path}` | {len(names)} | {few} |")
    nothing = ", ".join(f"`{path}`" for path, names in sorted(found.items()) if not names)
    return "\n".join([*lines, f"| {nothing} | 0 | |"]) + "\n"


def parts_of(page: str) -> tuple[str, str, str]:
    """The text of a `page` before the table, the table, and what follows it. ValueError where the
    page has no marks for it.
    """
    parts = re.fullmatch(f"(.*{re.escape(BEGIN)}\n)(.*)({re.escape(END)}.*)", page, re.S)
    if parts is None:
        raise ValueError(f"{PAGE}: expected the lines {BEGIN} and {END}; put them back")
    return parts[1], parts[2], parts[3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    table = markdown()
    if parser.parse_args().write:
        before, _, after = parts_of(PAGE.read_text(encoding="utf-8"))
        PAGE.write_text(before + table + after, encoding="utf-8")
    print(table, end="")


if __name__ == "__main__":
    main()
