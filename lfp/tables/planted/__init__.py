"""Planted truth, by the names of questions and readouts.

The method must recover the truth of a reward, and must stay silent where nothing was taught. The
truth file of a task names the questions that its reward answers; every question about words asks
each readout.
"""

from __future__ import annotations

from lfp.registry import Registry

#: A readout is a function of one cell's artefacts and a subject that gives a value per word.
READOUTS = Registry(
    "readout",
    {
        "probe latents": "lfp.tables.planted.readouts:probe_latents",
        "probe raw": "lfp.tables.planted.readouts:probe_raw",
        "output": "lfp.tables.planted.readouts:output",
        "choice": "lfp.tables.planted.readouts:choice",
        "choice, MLPs": "lfp.tables.planted.readouts:choice_of_mlps",
        "ruler": "lfp.tables.planted.readouts:ruler",
    },
)
#: Readouts of what fine-tuning changed. A policy of noise drifts along the lexicon in them as well,
#: so that they are asked which words stand out alone; the table `choice` holds their agreement with
#: the lexicon against such policies.
DRIFTING = ("choice", "choice, MLPs", "ruler")
#: The features of the readouts that are probes: their tau has the test parts of the repeated
#: partitions, and refits on permuted labels.
PROBED = {"probe latents": "latents", "probe raw": "raw"}
#: A question is a function of a planted cell and its clean one that gives answers.
QUESTIONS = Registry(
    "planted question",
    {
        "silence": "lfp.tables.planted.questions:silence",
        "movement": "lfp.tables.planted.questions:movement",
        "flipped": "lfp.tables.planted.questions:flipped",
        "trigger": "lfp.tables.planted.questions:trigger",
    },
)
