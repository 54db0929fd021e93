"""The table of verdicts in words on every policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lfp.change.detection import POWER
from lfp.files.artefacts import read_table
from lfp.statistics.records.base import Record
from lfp.statistics.verdicts import FALSE_ALARM, FOUND, SILENT, WRONG_SIDE
from lfp.tables.change.noise_range import beside_seeds
from lfp.tables.rows import TableSettings, Tally
from lfp.tables.summary.lookup import record_of, rows_where
from lfp.tables.summary.questions import CONTRARY, FACT, NO, OPEN, YES, Question, questions

#: Words named on each side.
_NAMED = 5
#: What is added to agreements with words that the reward gives no value.
_SILENT = "The reward gives words no valence: those read here are VADER's, and no feedback."
#: Topic and question of the gates of a table, which are passed or not.
_GATES = {
    "organism_health": ("subject", "Is the model a fair subject?"),
    "sae_health": ("dictionaries", "Are the dictionaries sparse, faithful codes?"),
}


class Statement(NamedTuple):
    """An answer to a question on a topic: its number, one word, a sentence and its table."""

    topic: str
    question: str
    record: Record
    answer: str
    sentence: str
    table: str


def verdicts(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Verdicts in words on the policies of every model and task.

    Questions of :mod:`lfp.tables.summary.questions` rest on one row of a table each: that of the
    mean over seeds where there are several, else that of the policy and of its cell's main variant
    of the autoencoder. Beside them stand the words that moved most, the gates of models and of
    dictionaries, the planted truth, and how small a change an audit would have seen. ``place`` is
    that of the question among all.
    """
    of_run = {Path(path).stem: read_table(path) for path in inputs}
    # A table without rows has the columns of a number alone, and none that a question asks for.
    tables = {name: table for name, table in of_run.items() if len(table)}
    tally = Tally()
    for (model, task), seeds in _policies(tables["fine_tuning"]).items():
        cell = _Cell(model, task, seeds, settings.main.get(f"{model}/{task}/seed{seeds[0]}", ""))
        for place, said in enumerate(_statements(cell, tables, settings)):
            label = {"model": model, "task": task, "place": place, "topic": said.topic}
            tally.add(
                said.record,
                label,
                question=said.question,
                answer=said.answer,
                sentence=said.sentence,
                table=said.table,
            )
    return tally


class _Cell(NamedTuple):
    """The policies of one model and task, with their seeds and the main autoencoder variant."""

    model: str
    task: str
    seeds: list[int]
    main: str

    @property
    def address(self) -> str:
        """The address of the first seed's policy."""
        return f"{self.model}/{self.task}/seed{self.seeds[0]}"

    def rows(self, frame: pd.DataFrame, **where: object) -> pd.DataFrame:
        """The rows of a table about these policies, with the labels `where`."""
        return rows_where(frame, {"model": self.model, "task": self.task} | where)


def _policies(fine_tuning: pd.DataFrame) -> dict[tuple[str, str], list[int]]:
    seeds = fine_tuning.groupby(["model", "task"], sort=False)["seed"]
    return {key: sorted(map(int, of_cell.unique())) for key, of_cell in seeds}


def _statements(
    cell: _Cell, tables: Mapping[str, pd.DataFrame], settings: TableSettings
) -> Iterator[Statement]:
    for question in questions():
        for said in _answered(question, cell, tables):
            if cell.address in settings.silent and question.where.get("words") == "all":
                answer = FACT if question.name == "probe" else said.answer
                said = said._replace(answer=answer, sentence=f"{said.sentence} {_SILENT}")
            yield said
    yield from _words(cell, tables)
    yield from _planted(cell, tables)
    yield from _limits(cell, tables, settings)
    yield from _gates(cell, tables)


def _answered(
    question: Question, cell: _Cell, tables: Mapping[str, pd.DataFrame]
) -> Iterator[Statement]:
    """The answer to a question, if the run has the row that it rests on."""
    if question.table not in tables:
        return
    row = _row(question, cell, tables)
    if row is None:
        return
    record, row = record_of(row), row | _unmoved(question, cell, tables)
    if not np.isfinite(record.estimate):
        sentence = f"{_capital(record.method)}."
        yield Statement(question.name, question.question, record, OPEN, sentence, question.table)
        return
    answer, sentence = question.answer(row, record)
    reason = row.get("health")
    if isinstance(reason, str) and reason not in ("", "healthy"):
        sentence += f" Read with care: {reason}."
    yield Statement(question.name, question.question, record, answer, sentence, question.table)


def _row(
    question: Question, cell: _Cell, tables: Mapping[str, pd.DataFrame]
) -> dict[str, Any] | None:
    """The row that a question rests on, with the columns of the policy's own row beside.

    A mean over seeds has the health of all of them, and the noise rewards that none of them is.
    """
    rows = cell.rows(tables[question.table], **question.where)
    if "sae" in rows:
        rows = rows[rows["sae"] == cell.main]
    if rows.empty:
        return None
    row = rows.sort_values("seed").iloc[0].to_dict()
    if len(cell.seeds) > 1 and "across_seeds" in tables:
        means = cell.rows(tables["across_seeds"], table=question.table, **question.where)
        if len(means) > 1:
            means = rows_where(means, {"family": cell.main})
        if len(means) == 1:
            mean = means.iloc[0].to_dict()
            row |= {name: mean[name] for name in mean if name in Record.__dataclass_fields__}
            row |= _health(rows)
            if "null_tasks" in rows:
                of_model = {"model": cell.model, **question.where}
                row |= beside_seeds(rows, rows_where(tables[question.table], of_model))
    return row


def _unmoved(question: Question, cell: _Cell, tables: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """The reason to read an answer about fine-tuning with care: a margin below its gate.

    Any change ranks pairs right, however small.
    """
    rows = cell.rows(tables["fine_tuning"])
    if question.table != "fine_tuning" or "passes" not in rows:
        return {}
    failed = rows[rows["passes"].eq(False) & (rows["quantity"] == "margin")]
    if failed.empty:
        return {}
    worst = failed.sort_values("estimate").iloc[0]
    reason = f"a margin of {worst['estimate']:.2g} is not above {worst['threshold']:g}"
    return {"health": f"{reason} ({len(failed)} of {len(cell.seeds)} seeds)"}


def _health(rows: pd.DataFrame) -> dict[str, str]:
    """The health of the seeds behind a mean: the first reason, and how many seeds have one."""
    if "health" not in rows:
        return {}
    reasons = rows["health"].fillna("").replace("healthy", "")
    reasons = reasons[reasons != ""]
    if reasons.empty:
        return {"health": ""}
    return {"health": f"{reasons.iloc[0]} ({len(reasons)} of {len(rows)} seeds)"}


def _words(cell: _Cell, tables: Mapping[str, pd.DataFrame]) -> Iterator[Statement]:
    """The words that moved most, of the first seed."""
    if "choice_words" not in tables:
        return
    rows = cell.rows(tables["choice_words"], part="log_ratio")
    rows = rows[rows["seed"] == cell.seeds[0]].sort_values("rank")
    if rows.empty:
        return
    lists = []
    for side in ("likelier", "unlikelier"):
        words = rows.loc[rows["side"] == side, "word"].head(_NAMED)
        if len(words):
            lists.append(f"{side}: {', '.join(words)}")
    moved = int((rows["p_adjusted"] < 0.05).sum())
    about = f"{moved} of the {len(rows)} that moved most are told from 0 over contexts"
    if len(cell.seeds) > 1:
        about += f"; seed {cell.seeds[0]}"
    yield Statement(
        "words", "Which words moved most?", record_of(rows.iloc[0]), FACT,
        f"{_capital('; '.join(lists))} ({about}).", "choice_words",
    )  # fmt: skip


def _capital(text: str) -> str:
    """`text` with a capital letter in front, and all others as they are."""
    return text[:1].upper() + text[1:]


def _share(good: np.ndarray, unit: str) -> Record:
    return Record(float(good.mean()), None, None, len(good), unit, "a share, no interval")


def _planted(cell: _Cell, tables: Mapping[str, pd.DataFrame]) -> Iterator[Statement]:
    """The planted truth: the share of what must be found, and of what must be silent."""
    if "planted_recovery" not in tables:
        return
    rows = cell.rows(tables["planted_recovery"])
    rows = rows[rows["of"].str.startswith("planted")]
    question = "Was the planted truth found, and nothing else?"
    for topic, sides, right, words in (
        ("planted", ("above", "below"), FOUND, "that must be there are found"),
        ("planted_null", ("at",), SILENT, "where nothing must be are silent"),
    ):
        asked = rows.loc[rows["expected"].isin(sides), "answer"]
        if asked.empty:
            continue
        good = (asked == right).to_numpy()
        record = _share(good, "reading")
        alarms, wrong = (int((asked == one).sum()) for one in (FALSE_ALARM, WRONG_SIDE))
        sentence = f"{good.sum()} of {len(good)} readings {words}"
        if right == SILENT:
            sentence += f", {alarms} raise a false alarm"
        elif wrong:
            sentence += f", {wrong} on the wrong side"
        # Undecided readings, and those that were not estimated, are no evidence of silence.
        silent = right == FOUND and (asked == SILENT).all()
        answer = YES if good.all() else CONTRARY if alarms + wrong else NO if silent else OPEN
        yield Statement(topic, question, record, answer, f"{sentence}.", "planted_recovery")


def _limits(
    cell: _Cell, tables: Mapping[str, pd.DataFrame], settings: TableSettings
) -> Iterator[Statement]:
    """How small a share of flipped words an audit sees in policies of this model and method."""
    if "detection" not in tables:
        return
    method, benign_share = settings.trained.get(cell.address, ("", 0.0))
    where = {"model": cell.model, "corpus": settings.corpora.get(cell.address)}
    where |= {"trained_by": method, "benign_share": benign_share}
    rows = rows_where(tables["detection"], where)
    asked = rows[rows["quantity"] == "limit"]
    limits = asked.dropna(subset="estimate")
    question = "How small a change would have been seen?"
    several = f"{len(asked.drop_duplicates(['readout', 'part']))} readouts"
    if (asked["words"] == "written").any():
        several += ", each asked about all words and about those that training wrote often"
    if len(limits):
        row = limits.sort_values(["estimate", "words"], kind="stable").iloc[0]
        sentence = (
            f"Where {row['estimate']:.0%} of the lexicon are flipped, the readout {_asked(row)},"
            " raises an alarm in four of five policies; it is the best, by these very policies, of"
            f" {several}."
        )
        yield Statement("limit", question, record_of(row), FACT, sentence, "detection")
    elif len(asked):
        power = rows[(rows["quantity"] == "power") & rows["share"].notna()]
        seen = power[power["estimate"] >= POWER].sort_values("share", ascending=False)
        if seen.empty:
            sentence = (
                f"None that was planted, of up to {power['share'].max():.0%} of the lexicon: an"
                f" alarm in four of five policies is raised by none of {several}."
            )
        else:
            best = seen.iloc[0]
            sentence = (
                f"No share from which on all larger ones are seen: {best['share']:.0%} of the"
                f" lexicon was, by the readout {_asked(best)}, and a larger share was not."
            )
        yield Statement("limit", question, record_of(asked.iloc[0]), FACT, sentence, "detection")
    elif len(rows):
        unknown = Record(float("nan"), None, None, 0, "seed", "not estimated: too few policies")
        sentence = "This run has too few policies to say: config/detection.yaml has enough."
        yield Statement("limit", question, unknown, OPEN, sentence, "detection")


def _asked(row: pd.Series) -> str:
    """The readout of a row of ``detection``, and the words that it was asked about if not all."""
    often = " (asked about words that training wrote often)" if row["words"] == "written" else ""
    return f"{row['readout']}, {row['part']}{often}"


def _gates(cell: _Cell, tables: Mapping[str, pd.DataFrame]) -> Iterator[Statement]:
    """Whether a model and the main dictionaries pass their gates."""
    for table, (topic, question) in _GATES.items():
        if table not in tables:
            continue
        rows = tables[table].dropna(subset="passes")
        rows = rows[rows["model"] == cell.model]
        rows = rows[rows["task"].isin([cell.task, ""]) | rows["task"].isna()]
        if "sae" in rows:
            rows = rows[rows["sae"] == cell.main]
        if rows.empty:
            continue
        passed = rows["passes"].astype(bool).to_numpy()
        record = _share(passed, "gate")
        sentence = f"{passed.sum()} of {len(passed)} gates are passed."
        if not passed.all():
            names = ", ".join(dict.fromkeys(rows.loc[~passed, "quantity"]))
            sentence = f"{sentence[:-1]}, not all of: {names}."
        answer = YES if passed.all() else NO
        yield Statement(topic, question, record, answer, sentence, table)
