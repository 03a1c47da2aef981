"""The directory of a run: whole checkpoints only, one run at a time, a result that is there or not."""

import errno
import json
import os
import shutil
from dataclasses import replace

import pytest

from lorat.errors import ConfigError
from lorat.training.plan import Plan
from lorat.training.splits import LabelledTexts, TrainingData
from lorat.training.work import Work

DATA = TrainingData(
    name="data",
    kind="labels",
    labels=("a", "b"),
    multi_label=False,
    train=LabelledTexts(("one", "two"), ((0,), (1,))),
    dev=LabelledTexts(("three",), ((0,),)),
    test=None,
    held_out=False,
)


@pytest.fixture
def plan(tmp_path):
    return Plan(tmp_path / "data", tmp_path / "out")


def begun(plan, data=DATA, base="base-id"):
    return Work(plan, "classify", data, base)


def half_written(work):
    with work.publish() as directory:
        (directory / "half").write_text("")
        raise ZeroDivisionError


def fails_after_a_checkpoint(work):
    with work.writing():
        checkpoint(work, 90)
        raise ZeroDivisionError


def checkpoint(work, step, state='{"epoch": 1}'):
    directory = work.checkpoints / f"checkpoint-{step}"
    directory.mkdir()
    if state is not None:
        (directory / "trainer_state.json").write_text(state, "utf-8")
    return directory


def test_the_last_checkpoint_is_the_one_of_most_steps(plan):
    work = begun(plan)
    assert work.last() is None
    for step in (90, 100, 9):
        checkpoint(work, step)
    assert work.last().name == "checkpoint-100"


@pytest.mark.parametrize("state", [None, "", '{"epoch": ', "\x00" * 40])
def test_a_checkpoint_that_a_kill_left_unfinished_is_removed(state, plan):
    work = begun(plan)
    checkpoint(work, 90)
    unfinished = checkpoint(work, 100, state)
    assert work.last().name == "checkpoint-90"
    assert not unfinished.exists()


def test_the_same_run_goes_on(plan):
    checkpoint(begun(plan), 90)
    again = replace(plan, name="another name", description="x", data_name="y", data=plan.data.parent)
    assert begun(again).last().name == "checkpoint-90"


@pytest.mark.parametrize(
    ("other", "data", "base", "says"),
    [
        ({"seed": 2}, DATA, "base-id", "another seed"),
        ({"given": {"rank": 4}}, DATA, "base-id", "another rank"),
        ({}, replace(DATA, dev=LabelledTexts(("3",), ((0,),))), "base-id", "another data"),
        ({}, DATA, "other-id", "another base"),
    ],
)
def test_another_run_does_not_go_on_with_it(other, data, base, says, plan):
    work = begun(plan)
    checkpoint(work, 90)
    with pytest.raises(ConfigError, match=says):
        begun(replace(plan, **other), data, base)
    assert work.last().name == "checkpoint-90"


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_what_fails_or_is_stopped_before_a_checkpoint_leaves_nothing(error, plan):
    work = begun(plan)
    with pytest.raises(error), work.writing():
        raise error
    assert not work.directory.exists()


def test_what_fails_after_a_checkpoint_can_go_on(plan):
    work = begun(plan)
    with pytest.raises(ZeroDivisionError):
        fails_after_a_checkpoint(work)
    assert begun(plan).last().name == "checkpoint-90"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file"),
        RuntimeError("basic_ios::clear: iostream error"),
    ],
)
def test_a_full_disk_is_an_error_that_says_what_to_do(error, plan):
    with pytest.raises(ConfigError, match="free some space") as found, begun(plan).writing():
        raise error
    assert found.value.__cause__ is error


def test_other_errors_of_the_system_stay_what_they_are(plan):
    with pytest.raises(PermissionError), begun(plan).writing():
        raise PermissionError(errno.EACCES, "Permission denied")


def test_a_result_is_there_when_it_is_whole(plan):
    work = begun(plan)
    with pytest.raises(ZeroDivisionError):
        half_written(work)
    assert not plan.out.exists()
    with work.publish() as directory:
        assert not any(directory.iterdir())
        (directory / "whole").write_text("")
        assert not plan.out.exists()
    assert [path.name for path in plan.out.iterdir()] == ["whole"]
    assert not work.directory.exists()


def test_an_empty_directory_is_taken(plan):
    plan.out.mkdir()
    work = begun(plan)
    with work.publish() as directory:
        (directory / "whole").write_text("")
    assert [path.name for path in plan.out.iterdir()] == ["whole"]


def test_what_another_run_began_without_a_checkpoint_gives_way(plan):
    checkpoint(begun(plan), 90, state=None)
    work = begun(replace(plan, seed=2))
    assert json.loads((work.directory / "run.json").read_text("utf-8"))["seed"] == 2
    assert not any(work.checkpoints.iterdir())


def test_what_cannot_be_written_is_an_error_that_says_what_to_do(plan):
    work = begun(plan)
    with pytest.raises(ConfigError, match="make room there, then run the same again"), work.publish():
        directory_of_another(plan.out)
    assert work.directory.exists()
    taken = replace(plan, out=plan.out.with_name("other"))
    taken.out.with_name("other.training").write_text("")
    with pytest.raises(ConfigError, match="give another --out"):
        begun(taken)


def directory_of_another(out):
    out.mkdir()
    (out / "file").write_text("")


@pytest.mark.parametrize("theirs", ["notes.txt", "checkpoints/mine.bin"])
def test_a_directory_of_somebody_else_is_left_alone(theirs, plan):
    file = plan.out.with_name("out.training") / theirs
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    with pytest.raises(ConfigError, match="is no run's directory, and not empty: move it, or give another --out"):
        begun(plan)
    assert file.read_text() == "precious"


@pytest.mark.parametrize("fails", [True, False])
def test_what_somebody_adds_to_a_runs_directory_is_left_there(fails, plan):
    work = begun(plan)
    (work.directory / "notes.txt").write_text("precious")
    if fails:
        with pytest.raises(ZeroDivisionError), work.writing():
            raise ZeroDivisionError
    else:
        with work.publish():
            pass
    assert [path.name for path in work.directory.iterdir()] == ["notes.txt"]


def test_two_runs_do_not_share_a_directory(plan):
    """The lock is a process's: the other run is in one of its own."""
    first = begun(plan)
    checkpoint(first, 90, state=None)
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            begun(plan)
        except ConfigError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as said:
        assert "a run is under way there: wait for it, or stop it" in said.read()
    assert [path.name for path in first.checkpoints.iterdir()] == ["checkpoint-90"]


def test_a_run_that_is_stopped_says_how_it_goes_on(plan, capsys):
    work = begun(plan)
    checkpoint(work, 90)
    with pytest.raises(KeyboardInterrupt), work.writing():
        raise KeyboardInterrupt
    assert capsys.readouterr().out == "the same command goes on after step 90\n"
    assert work.last().name == "checkpoint-90"


def test_a_record_that_was_not_finished_is_written_again(plan):
    work = begun(plan)
    record = work.directory / "run.json"
    shutil.move(record, work.directory / "run.json.new")
    begun(plan)
    assert json.loads(record.read_text("utf-8"))["seed"] == 1
