"""Jobs that were killed: every stage that resumes ends as one that was let be, and starts anew
where anything upstream changed.
"""

import gc
import os

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lfp.running import one_writer
from tests.language_service import LanguageService
from tests.stages import STAGES, Attempts, reply, write_files


@pytest.fixture(scope="module")
def attempts(tokenizer, tmp_path_factory):
    """All inputs twice, and a place for attempts at the stages."""
    folder = tmp_path_factory.mktemp("stages")
    files = folder / "before", folder / "after"
    for seed, path in enumerate(files):
        write_files(path, seed, tokenizer)
    gc.freeze()  # trainers collect garbage, among all that the tests before have loaded
    with LanguageService(reply) as server:
        yield Attempts(files, folder, {"name": "s", "base_url": server.url, "model": "m"})
    gc.unfreeze()


@pytest.mark.parametrize("name", STAGES)
def test_killed_and_resumed_equals_undisturbed(name, attempts):
    digests, written = attempts.undisturbed(name)
    assert written > 1
    folder = attempts.killed(name, written - 1)
    resumed, again = attempts.run(folder, name)
    assert resumed == digests
    assert again < written  # what was there was not done again
    assert one_writer.STATE not in log_of(folder)


def log_of(folder):
    return (folder / "results/logs/job.log").read_text()


def starts_anew(attempts, name, kill, change):
    """Whether a job, killed and started again after a `change` upstream, is as if never killed."""
    folder = attempts.killed(name, kill)
    if change in STAGES[name].files():
        attempts.put(folder, change, changed=True)
    again, expected = attempts.run(folder, name, change), attempts.undisturbed(name, change)
    if STAGES[name].script == "language_explanations":  # an answer is kept by its whole question
        return again[0] == expected[0]
    return again == expected and one_writer.STATE in log_of(folder)


@pytest.mark.parametrize("name", [name for name in STAGES if " with " not in name])
def test_another_input_starts_a_killed_job_anew(name, attempts):
    _, written = attempts.undisturbed(name)
    assert starts_anew(attempts, name, written - 1, STAGES[name].files()[0])


@settings(
    max_examples=int(os.environ.get("RESUMES", "10")),
    phases=[Phase.generate],  # to shrink an example takes minutes
    derandomize=True,
    deadline=None,
    database=None,
)
@given(data=st.data())
def test_whatever_changed_upstream_starts_a_killed_job_anew(attempts, data):
    name = data.draw(st.sampled_from(sorted(STAGES)), "stage")
    kill = data.draw(st.integers(1, attempts.undisturbed(name)[1] - 1), "resume points")
    change = data.draw(st.sampled_from(STAGES[name].changes()), "change")
    assert starts_anew(attempts, name, kill, change)
