"""Jobs that were killed: every stage that resumes ends as one that was let be, and starts anew
where anything upstream changed.
"""

import os
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lfp.running import one_writer
from tests.language_service import LanguageService
from tests.stages import LIMITS, STAGES, Attempts, KilledError, reply, write_files


@pytest.fixture(scope="module")
def attempts(tokenizer, tmp_path_factory):
    """All inputs twice, and a place for attempts at the stages."""
    folder = tmp_path_factory.mktemp("stages")
    files = folder / "before", folder / "after"
    for seed, path in enumerate(files):
        write_files(path, seed, tokenizer)
    with LanguageService(reply) as server:
        yield Attempts(files, folder, {"name": "s", "base_url": server.url, "model": "m"})


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


@pytest.mark.parametrize("name", [n for n in STAGES if STAGES[n].script in LIMITS])
def test_another_limit_changes_no_byte_and_takes_the_resume_point(name, attempts):
    """So that settings with the mark ``limit`` need not rerun a job."""
    digests, written = attempts.undisturbed(name)
    assert attempts.undisturbed(name, "limits")[0] == digests
    folder = attempts.killed(name, written - 1)
    resumed, again = attempts.run(folder, name, "limits")
    assert (resumed, again < written) == (digests, True)
    assert one_writer.STATE not in log_of(folder)


@pytest.mark.parametrize("name", [name for name in STAGES if " with " not in name])
def test_another_input_starts_a_killed_job_anew(name, attempts):
    _, written = attempts.undisturbed(name)
    assert starts_anew(attempts, name, written - 1, STAGES[name].files()[0])


@pytest.mark.parametrize(
    "name", ["ppo", "dpo", "grpo with adapters", "pretraining", "harvest", "features", "ablation"]
)
@pytest.mark.parametrize("damage", ["flipped", "cut short"])
def test_a_damaged_resume_point_costs_work_and_no_result(name, damage, attempts):
    """Every file of the newest resume point is damaged, as by a disk or a loss of power."""
    digests, written = attempts.undisturbed(name)
    folder = attempts.killed(name, written - 1)
    [state] = (folder / "results").glob(".*.state-*")
    newest = max(state.glob("checkpoint-*"), default=state)
    for path in [newest] if newest.is_file() else sorted(newest.rglob("*")):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content if damage == "flipped" else content[:-3])
    assert attempts.run(folder, name)[0] == digests
    assert "damaged" in log_of(folder)


def test_what_a_kill_left_of_a_resume_point_or_a_record_goes(tmp_path, caplog):
    """Each was being written aside, and the resume point itself stays for the work to go on."""
    caplog.set_level("INFO")
    state, others = tmp_path / ".policy.state-0123456789ab", [tmp_path / "..policy.v2.1a2b3c4d"]
    left = [tmp_path / f"..policy.{n}.1a2b3c4d" for n in (state.name[8:], "provenance.json")]
    for path in (state, *left, *others):
        path.write_text("")
    one_writer.clear([tmp_path / "policy"], keep=[state])
    assert sorted(tmp_path.iterdir()) == sorted([state, *others])
    assert one_writer.STATE not in caplog.text


def test_a_harvest_has_the_layers_that_were_asked_for_and_no_other(attempts, monkeypatch):
    """The configuration says four layers of a checkpoint that has three, and then two."""
    stage = STAGES["harvest"]

    def asked(*layers):
        changed = replace(stage, settings={**stage.settings, "layers": layers})
        monkeypatch.setitem(STAGES, "harvest", changed)

    folder = attempts.prepared("harvest")
    asked(0, 1, 2, 3)
    with pytest.raises(IndexError):
        attempts.run(folder, "harvest")
    asked(0, 1)
    digests, _ = attempts.run(folder, "harvest")
    files = {"layer0.safetensors", "layer1.safetensors", "outliers.json", "stamp.json"}
    assert set(digests["results/activations"]) == files


def test_curves_of_another_attempt_are_not_drawn_with_this_one(attempts, monkeypatch):
    monkeypatch.setenv("LFP_TENSORBOARD", "1")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")
    folder = attempts.killed("pretraining", 2)
    events = folder / "results/tensorboard/job/events"
    for change, is_there in (("", True), ("code", False)):
        events.parent.mkdir(parents=True, exist_ok=True)
        events.write_text("of the killed attempt")
        with pytest.raises(KilledError):
            attempts.run(folder, "pretraining", change, kill=1)
        assert events.exists() is is_there


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
