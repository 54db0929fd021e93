"""Compare a results folder with its provenance.json.

The exit status is 1 where a file is not the recorded one.

Checkpoints and other intermediate artefacts may be missing, as in a run that ships with a paper;
tables, figures and pages may not.
"""

import argparse
import sys
from pathlib import Path

from lfp.files import artefacts, provenance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "provenance", help="provenance.json in the folder of results that it speaks of"
    )
    path = Path(parser.parse_args().provenance)
    try:
        recorded = artefacts.read_json(path)
        targets, records = set(recorded["targets"]), recorded["artefacts"]
    except (ValueError, KeyError, FileNotFoundError) as error:
        sys.exit(
            f"error: {path}: not a provenance file ({error}); make it with: snakemake --cores all"
            f" {path}"
        )
    problems = list(provenance.problems(records, path.parent))
    wrong = [(name, what) for name, what in problems if what != "missing" or name in targets]
    for name, what in problems:
        print(f"{name}: {what}")
    gone = len(problems) - len(wrong)
    print(
        f"{len(records)} artefacts: {len(wrong)} not as recorded,"
        f" {gone} intermediate ones not there"
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
