"""What a run is told: by command line, by code, and on the card."""

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorat.errors import ConfigError
from lorat.training.command import add_arguments, read_columns, read_plan
from lorat.training.plan import DEFAULTS, LEARNS_FROM, Hyperparameters, Plan

NUMBERS = {
    "rank": st.integers(1, 128),
    "alpha": st.floats(0.5, 256),
    "epochs": st.integers(1, 99),
    "batch_size": st.integers(1, 512),
    "learning_rate": st.floats(1e-6, 1e-1),
    "b_ratio": st.floats(0.5, 32),
    "dropout": st.floats(0, 0.9),
    "warmup": st.floats(0, 0.9),
    "weight_decay": st.floats(0, 0.9),
    "patience": st.integers(1, 99),
    "tune": st.sampled_from(["q", "qv", "qkovid"]),
    "use_rslora": st.just(True),
}
words = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
given_numbers = st.fixed_dictionaries({}, optional=NUMBERS)


def parsed(line):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return read_plan(parser.parse_args(line))


@given(given_numbers, st.sampled_from(sorted(LEARNS_FROM)), words, words, words, st.integers(0, 2**32 - 1))
def test_the_command_on_the_card_trains_the_same(numbers, task, name, licence, label, seed):
    plan = Plan(
        Path("x"),
        Path("no-such"),
        name=name,
        data_licence=licence or "not stated",
        leave_out=(label,),
        seed=seed,
        given=numbers,
    )
    again = parsed(shlex.split(shlex.join(plan.command(task))))
    assert asdict(again.hyperparameters(task)) == asdict(plan.hyperparameters(task))
    assert (again.task, again.name, again.data_licence, again.seed) == (task, name, plan.data_licence, seed)
    assert again.leave_out == (label,)


def test_directories_of_this_machine_are_not_in_the_command(tmp_path):
    plan = Plan(tmp_path, tmp_path / "out", base=str(tmp_path), columns=(("text", "review"),), leave_out=("x",))
    command = plan.command("classify")
    assert not [word for word in command if str(tmp_path) in word]
    assert command[-6:] == ["--leave-out", "x", "--column", "text=review", "--base", "BASE"]
    assert Plan(tmp_path, tmp_path / "out", base="hub/name").command("classify")[-2:] == ["--base", "hub/name"]


@pytest.mark.parametrize(("texts", "epochs"), [(1, 20), (3_000, 20), (10_000, 6), (20_000, 3), (10_000_000, 3)])
def test_epochs_are_by_the_number_of_texts(texts, epochs):
    assert Hyperparameters().epochs_for(texts) == epochs
    assert Hyperparameters(epochs=7).epochs_for(texts) == 7


@pytest.mark.parametrize(
    ("task", "kind", "chosen"),
    [
        ("auto", "labels", "classify"),
        ("auto", "tags", "tokens"),
        ("auto", "pairs", "pairs"),
        ("pairs", "labels", "pairs"),
    ],
)
def test_a_task_is_chosen_by_the_kind_of_data(task, kind, chosen):
    plan = Plan(Path("x"), Path("no-such"), task=task)
    assert plan.task_for(kind) == chosen
    assert plan.hyperparameters(chosen) == DEFAULTS[chosen]


@pytest.mark.parametrize(("task", "kind"), [("tokens", "labels"), ("classify", "pairs"), ("pairs", "tags")])
def test_a_task_that_cannot_learn_from_the_data_is_refused(task, kind):
    with pytest.raises(ConfigError, match="cannot learn from rows of"):
        Plan(Path("x"), Path("no-such"), task=task).task_for(kind)


@pytest.mark.parametrize(
    "numbers",
    [
        {"epochs": 0},
        {"batch_size": -1},
        {"learning_rate": float("nan")},
        {"warmup": 1.0},
        {"weight_decay": -0.1},
        {"x": 1},
    ],
)
def test_values_that_cannot_be_honoured_are_refused_by_name(numbers):
    with pytest.raises(ConfigError, match=next(iter(numbers))):
        Plan(Path("x"), Path("no-such"), given=numbers)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"given": {"rank": 257}}, "rank=257: use a whole number from 1 to 256"),
        ({"given": {"tune": "x"}}, "tune"),
        ({"description": "x" * 10_001}, "description has 10,001 characters: give at most 10,000"),
        ({"data_name": "x" * 1_001}, "data_name has 1,001"),
        ({"seed": -1}, "seed must be from 0 to 4294967295"),
        ({"seed": 2**32}, "seed must be from 0 to 4294967295"),
    ],
)
def test_limits_are_known_before_training(settings, says):
    with pytest.raises(ConfigError, match=says):
        Plan(Path("x"), Path("no-such"), **settings)


def test_a_column_is_given_once():
    assert read_columns(["text=a", "label=b"]) == (("text", "a"), ("label", "b"))
    with pytest.raises(ConfigError, match="--column text= is there twice"):
        read_columns(["text=a", "text=b"])


@pytest.mark.parametrize("text", ["text", "=review", "text="])
def test_a_column_has_a_name_and_a_field(text):
    with pytest.raises(ConfigError, match="NAME=FIELD"):
        read_columns([text])
