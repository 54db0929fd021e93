"""Inputs of tables and figures: paths of artefacts, from the grid of cells alone.

Planning a run loads this module, so it imports no library of science. A path is made of a cell's
address, as :func:`lfp.files.addresses.labels` reads it back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lfp.feedback.rewards import REWARDS
from lfp.probing.subjects import SUBJECTS
from lfp.settings import BOTH, UNREWARDED, Autoencoder
from lfp.tables.change import LEAST_CLEAN


class Cell(Protocol):
    """The part of a cell (``lfp.grid.Cell``) that decides which artefacts it has."""

    address: str
    model: str
    task: str
    seed: int
    method: str
    feedback: str
    until: str
    main: str
    autoencoders: Sequence[str]
    probed: Sequence[str]
    explainers: Sequence[str]
    lowest_layers: bool | Sequence[int]
    settings: Mapping[str, Any]


class Grid(Protocol):
    """The part of a grid (``lfp.grid.Grid``) that decides which artefacts there are."""

    cells: Sequence[Cell]
    models: Mapping[str, Mapping[str, Any]]
    tasks: Mapping[str, Mapping[str, Any]]

    def autoencoder_settings(self, cell: Cell, variant: str) -> Autoencoder:
        """The settings of a variant in a cell."""

    def twins(self, cell: Cell) -> list[str]:
        """The cell's main variant and those that differ from it in tying and in `reads` alone."""

    def alike_in(self, cell: Cell, free: Sequence[str]) -> list[str]:
        """The variants of a cell that are like its main one, the settings `free` aside."""

    def compared_variants(self, cell: Cell) -> list[str]:
        """The variants of a cell whose latents tell policy from base."""

    def shares_latents(self, cell: Cell) -> bool:
        """Whether the latents of a cell's main variant have shares at the choice."""

    def transferred(self, cell: Cell) -> list[str]:
        """The variants that are measured on base and policy: of cells with a pretrained one."""

    def of_heads(self, cell: Cell) -> list[str]:
        """The variants of a cell that read the outputs of all heads side by side."""

    def latent_readers(self, cell: Cell) -> list[str]:
        """The variants whose latents are read at the choice: main one, and its like of the base."""

    def contrast_settings(self, task: str) -> Mapping[str, Any]:
        """Settings of a task's contrast triples."""


#: Endings of the files of a task's feedback.
_LEXICON = (".json", ".truth.json")


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


@dataclass(frozen=True)
class Plan:
    """The artefacts of a grid that tables and figures read.

    Parameters
    ----------
    grid
        The checked configuration, a ``lfp.grid.Grid``.
    """

    grid: Grid

    # ---------------------------------------------------------------------------------------- cells

    @property
    def cells(self) -> list[Cell]:
        """Every cell of the grid: each has a policy and readings of its change."""
        return list(self.grid.cells)

    @property
    def probed_cells(self) -> list[Cell]:
        """The cells that go on to dictionaries and probes."""
        return [cell for cell in self.grid.cells if cell.until != "change"]

    def having(self, **attributes: object) -> list[Cell]:
        """The probed cells whose attributes equal `attributes`."""
        return [
            cell
            for cell in self.probed_cells
            if all(getattr(cell, name) == value for name, value in attributes.items())
        ]

    @property
    def rewarded(self) -> list[Cell]:
        """The cells that learn from a reward of text."""
        return self.having(feedback="reward")

    @property
    def reading_base(self) -> list[Cell]:
        """The cells that learn from a reward of text and probe their base."""
        return [cell for cell in self.rewarded if self._reads(cell, "base")]

    @property
    def preferring(self) -> list[Cell]:
        """The cells that learn from pairs of answers."""
        return self.having(feedback="preference")

    @property
    def ablated(self) -> list[Cell]:
        """The cells whose features are explained and ablated."""
        return self.having(until="ablation")

    @property
    def lowest(self) -> list[Cell]:
        """The cells whose least changed layers get autoencoders as well."""
        return [cell for cell in self.probed_cells if cell.lowest_layers]

    @property
    def comparing(self) -> list[Cell]:
        """The cells whose probes are held against each other.

        They read a second model, a second kind of features, or labels that are permuted.
        """
        return [cell for cell in self.probed_cells if self._compares(cell)]

    @staticmethod
    def _compares(cell: Cell) -> bool:
        probes = cell.settings["probes"]
        models = [name for name in cell.settings["features"].subjects if SUBJECTS[name].load]
        shared = {"latents", "raw"} & {*probes.features} & {*probes.control_features}
        kinds = len(probes.features) if "latents" in probes.features else 0
        return (len(models) > 1 and bool(shared)) or kinds > 1 or probes.label_shuffles > 0

    @property
    def has_seeds(self) -> bool:
        """Whether a model and task occur with several seeds of fine-tuning."""
        pairs = {(cell.model, cell.task) for cell in self.grid.cells}
        return len(pairs) < len(self.grid.cells)

    @staticmethod
    def _reads(cell: Cell, *subjects: str) -> bool:
        return set(subjects) <= set(cell.settings["features"].subjects)

    # ------------------------------------------------------------------------------- shared results

    def corpora(self, pattern: str) -> list[str]:
        """`pattern` for every corpus of a cell's task or triples, with {name} as its name."""
        names = [self.grid.tasks[cell.task]["corpus"] for cell in self.grid.cells]
        preferring = _unique([cell.task for cell in self.preferring])
        triples = [self.grid.task_settings("contrasts", task).corpus for task in preferring]
        return [pattern.format(name=name) for name in _unique([*names, *filter(None, triples)])]

    def rewritten(self, pattern: str) -> list[str]:
        """`pattern` for every task whose triples a language model writes.

        {name} in it is the name of the task.
        """
        return [
            pattern.format(name=name)
            for name in _unique([cell.task for cell in self.preferring])
            if self.grid.task_settings("contrasts", name).source == "rewrites"
        ]

    def grown(self, pattern: str) -> list[str]:
        """`pattern` for every model that is pre-trained here, with {name} as its name."""
        return [
            pattern.format(name=name)
            for name in _unique([cell.model for cell in self.grid.cells])
            if "organism" in self.grid.models[name]
        ]

    # ------------------------------------------------------------------------ results of the cells

    def per_cell(self, pattern: str, cells: Sequence[Cell] | None = None) -> list[str]:
        """`pattern` for every cell, or for some of them.

        {cell} is the folder of the cell's results, {sae} the cell's main autoencoder.
        """
        return [
            pattern.format(cell=f"results/{cell.address}", sae=cell.main)
            for cell in (self.probed_cells if cells is None else cells)
        ]

    def variant_metrics(self) -> list[str]:
        """Metrics of every variant of the autoencoder of every cell."""
        return [
            path for cell in self.probed_cells for path in self._metrics(cell, cell.autoencoders)
        ]

    def evaluation_files(self, *names: str) -> list[str]:
        """The files `names` of every variant that reads one model, of cells that judge them."""
        return [
            f"results/{cell.address}/sae/{sae}/{name}"
            for cell in self.probed_cells
            if cell.settings["evaluation"].probes
            for sae in cell.autoencoders
            if self.grid.autoencoder_settings(cell, sae).reads not in BOTH
            for name in names
        ]

    def health_files(self) -> list[str]:
        """Policies of the probed cells, and metrics of variants that are read for more than that.

        They tell whether there is anything to be read.
        """
        metrics = [path for cell in self.probed_cells for path in self._metrics(cell, cell.probed)]
        return [*self.per_cell("{cell}/policy"), *metrics]

    def transfer_files(self) -> list[str]:
        """Errors by text on base and policy, of every variant of cells with a pretrained one."""
        return [
            f"results/{cell.address}/sae/{sae}/transfer.parquet"
            for cell in self.probed_cells
            for sae in self.grid.transferred(cell)
        ]

    def head_files(self) -> list[str]:
        """Shares of heads in the directions of every variant at the site of all heads."""
        return [
            f"results/{cell.address}/sae/{sae}/head_shares.parquet"
            for cell in self.probed_cells
            for sae in self.grid.of_heads(cell)
        ]

    def sweep_metrics(self, setting: str) -> list[str]:
        """Metrics of each cell's main autoencoder and of those that differ in one `setting` alone.

        Such as read the base are among them. A cell with a single value of the setting has none.
        """
        paths = []
        for cell in self.probed_cells:
            variants = self.grid.alike_in(cell, [setting, "reads"])
            if len(variants) > len(self.grid.alike_in(cell, ["reads"])):
                paths += self._metrics(cell, variants)
        return paths

    def twin_metrics(self) -> list[str]:
        """Metrics of each cell's main autoencoder and of its twins, tied against untied."""
        return [
            path
            for cell in self.probed_cells
            for path in self._metrics(cell, self.grid.twins(cell))
        ]

    def lowest_metrics(self) -> list[str]:
        """Metrics of the autoencoders that are also trained on the least changed layers."""
        return [
            path
            for cell in self.lowest
            for path in self._metrics(cell, self.grid.alike_in(cell, ["reads"]))
        ]

    @staticmethod
    def _metrics(cell: Cell, variants: Sequence[str]) -> list[str]:
        return [f"results/{cell.address}/sae/{sae}/metrics.json" for sae in variants]

    def probe_files(
        self, cells: Sequence[Cell], *files: str, subjects: Sequence[str] | None = None
    ) -> list[str]:
        """The `files` of every probed autoencoder and subject of `cells`, or of some `subjects`."""
        return [
            f"results/{cell.address}/probes/{sae}/{subject}/{name}"
            for cell in cells
            for sae in cell.probed
            for subject in cell.settings["features"].subjects
            if subjects is None or subject in subjects
            for name in files
        ]

    def output_files(self, cells: Sequence[Cell]) -> list[str]:
        """Features of policy and base of those `cells` that read both.

        They hold the probability of a text under each of the two.
        """
        return [
            f"results/{cell.address}/features/{cell.main}/{subject}.safetensors"
            for cell in cells
            if self._reads(cell, "policy", "base")
            for subject in ("base", "policy")
        ]

    def ablation_files(
        self, cells: Sequence[Cell], subjects: Sequence[str] = ("policy", "base")
    ) -> list[str]:
        """Completions and neutral losses of the ablated `subjects` of `cells`.

        A subject without arms has none.
        """
        arms = {"policy": "arms", "base": "base_arms"}
        return [
            f"results/{cell.address}/ablation/{cell.main}/{subject}.{kind}"
            for cell in cells
            for subject in subjects
            if getattr(cell.settings["ablation"], arms[subject])
            for kind in ("parquet", "neutral.parquet")
        ]

    def explanation_files(self, pattern: str = "{explainer}.parquet") -> list[str]:
        """`pattern` for every explainer of every explained cell."""
        return [
            f"results/{cell.address}/explanations/{cell.main}/{pattern.format(explainer=explainer)}"
            for cell in self.ablated
            for explainer in cell.explainers
        ]

    def words_and_completions(self) -> list[str]:
        """Predictions of words, and all that tells which words a policy wrote."""
        cells = self.having(feedback="reward", until="ablation")
        return [
            *self.per_cell("{cell}/probes/{sae}/policy/predictions.parquet", cells),
            *self.per_cell("{cell}/ablation/{sae}/policy.parquet", cells),
            *self.per_cell("{cell}/policy", cells),
        ]

    def change_files(self) -> list[str]:
        """Readings of the change of every cell, and the truth and lexicon of its task."""
        tasks = _unique([cell.task for cell in self.cells])
        lexicons = [f"results/lexicons/{task}{end}" for task in tasks for end in _LEXICON]
        return [
            *self.per_cell("{cell}/change/readings.parquet", self.cells),
            *self.per_cell("{cell}/policy", self.cells),
            *lexicons,
        ]

    def account_files(self, setting: str, name: str) -> list[str]:
        """The file `name` of every cell whose account has something under `setting`."""
        cells = [cell for cell in self.cells if getattr(cell.settings["account"], setting)]
        return self.per_cell(f"{{cell}}/change/{name}", cells)

    def intervention_files(
        self, *names: str, selector: str | None = None, circuits: bool = False
    ) -> list[str]:
        """Files of the interventions of every cell that has some, for each of its subjects.

        `names` stand behind the subject: ``.parquet``, or ``/effects.parquet``. With a `selector`
        they are those of cells that ask for it, and with `circuits` of those with circuits.
        """
        asked = [(cell, cell.settings["interventions"]) for cell in self.cells]
        return [
            f"results/{cell.address}/interventions/{cell.main}/{subject}{name}"
            for cell, settings in asked
            if settings.selectors and (selector is None or selector in settings.selectors)
            if settings.circuit or not circuits
            for subject in settings.subjects
            for name in names
        ]

    def steering_files(self, *names: str, setting: str = "vectors") -> list[str]:
        """Files of every cell whose settings of steering have something under `setting`."""
        return [
            f"results/{cell.address}/steering/{cell.main}/{name}.parquet"
            for cell in self.cells
            if cell.settings["steering"].vectors and getattr(cell.settings["steering"], setting)
            for name in names
        ]

    def latent_files(self) -> list[str]:
        """Shares and shifts of latents, what else is known of these, and the feedback.

        A cell has them where its main autoencoder reads what is written to the residual stream, and
        where one like it learned from the base, of that as well: it knows nothing of the lesson.
        """
        cells = [cell for cell in self.probed_cells if self.grid.shares_latents(cell)]
        read = [(cell, sae) for cell in cells for sae in self.grid.latent_readers(cell)]
        explained = [
            f"results/{cell.address}/explanations/{cell.main}/{explainer}.parquet"
            for cell in cells
            if cell.until == "ablation"
            for explainer in cell.explainers
            if explainer == cell.settings["ablation"].explainer
        ]
        return [
            *(
                f"results/{cell.address}/{folder}/{sae}/{name}.parquet"
                for folder, name in (
                    ("latents", "choice"),
                    ("latents", "shifts"),
                    ("sae", "matches"),
                )
                for cell, sae in read
            ),
            *explained,
            *(f"results/lexicons/{task}.json" for task in _unique([cell.task for cell in cells])),
        ]

    def difference_files(self) -> list[str]:
        """Latents that tell policy from base, of every variant that has them, and the truths."""
        compared = [
            (cell, sae) for cell in self.probed_cells for sae in self.grid.compared_variants(cell)
        ]
        tasks = _unique([cell.task for cell, _ in compared])
        return [
            *(f"results/{cell.address}/sae/{sae}/feature_diff.parquet" for cell, sae in compared),
            *(f"results/lexicons/{task}.truth.json" for task in tasks),
        ]

    def audited_files(self) -> list[str]:
        """The files of :meth:`change_files` where suspicion has something to judge and to go by.

        Some model has :data:`LEAST_CLEAN` policies of the clean lexicon, and one of another reward
        of the same corpus.
        """
        kinds: dict[tuple[str, str], list[str]] = {}
        for cell in self.cells:
            task = self.grid.tasks[cell.task]
            if cell.feedback == "reward" and cell.method not in UNREWARDED:
                kinds.setdefault((cell.model, task["corpus"]), []).append(task["reward"])
        judged = (len({*of}) > 1 and of.count("vader") >= LEAST_CLEAN for of in kinds.values())
        return self.change_files() if any(judged) else []

    def several_shares_flipped(self) -> bool:
        """Whether some model, corpus and method has lexicons with different shares of flips."""
        shares: dict[tuple[str, str, str], set[float]] = {}
        for cell in self.cells:
            task = self.grid.tasks[cell.task]
            if task.get("reward") == "vader_flipped":
                of = shares.setdefault((cell.model, task["corpus"], cell.method), set())
                of.add(task["flipped_share"])
        return any(len(of) > 1 for of in shares.values())

    def audited_bases(self) -> list[str]:
        """The models that the policies of :meth:`audited_files` were tuned from."""
        models = _unique([cell.model for cell in self.cells]) if self.audited_files() else []
        return [f"results/models/{model}" for model in models]

    def planted_files(self) -> list[str]:
        """Truths, readings, explanations and ablations of the planted cells and their clean ones.

        A clean cell is of the same model, corpus, method and share of benign data. A planted cell
        without a clean one of its own seed is left out.
        """
        trained = [cell for cell in self.rewarded if cell.method not in UNREWARDED]
        kind = {cell.address: self.grid.tasks[cell.task]["reward"] for cell in trained}
        trained_by = self.grid.table_settings()["trained"]
        corpus = {cell.address: self.grid.tasks[cell.task]["corpus"] for cell in trained}
        alike = {c.address: (c.model, corpus[c.address], *trained_by[c.address]) for c in trained}
        clean = [cell for cell in trained if kind[cell.address] == "vader"]
        seeds = {(*alike[cell.address], cell.seed) for cell in clean}
        planted = [
            cell
            for cell in trained
            if REWARDS[kind[cell.address]].questions and (*alike[cell.address], cell.seed) in seeds
        ]
        asked = {alike[cell.address] for cell in planted}
        both = [*planted, *(cell for cell in clean if alike[cell.address] in asked)]
        cells = [cell for cell in both if self._reads(cell, "policy", "base")]
        tasks = sorted({cell.task for cell in cells})
        explained = [cell for cell in cells if cell.until == "ablation"]
        triggered = [
            cell for cell in explained if "trigger" in REWARDS[kind[cell.address]].questions
        ]
        return [
            *(f"results/lexicons/{task}.truth.json" for task in tasks),
            *(
                f"results/{cell.address}/probes/{cell.main}/{subject}/{name}.parquet"
                for cell in cells
                for subject in ("base", "policy")
                for name in ("predictions", "parts")
            ),
            *self.output_files(cells),
            *self.per_cell("{cell}/change/readings.parquet", cells),
            *self.per_cell("{cell}/explanations/{sae}/heuristic.parquet", explained),
            *self.ablation_files(triggered, ("policy",)),
        ]
