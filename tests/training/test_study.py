"""The networks of a study are those trained alone; a killed study goes on; one that diverges is an error of its own."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax import iterate
from medjax.errors import DataError
from medjax.running.workdir import WorkDir, open_workdir
from medjax.training import study
from medjax.training.state import trainer
from medjax.training.study import MemberTraining, StudyMember, train

RATES = (0.1, 0.2, 0.4, 0.05, 0.3)
traced: list[int] = []


def loss(params, batch, key, rate):
    traced.append(1)
    value = jnp.mean((params["x"] - batch + 0.05 * jax.random.normal(key, batch.shape)) ** 2)
    return value * jnp.where((rate > 8) & (jnp.abs(params["x"][0]) > 0), jnp.nan, 1.0)


def make(settings):
    return trainer(partial(loss, rate=settings["rate"]), optax.sgd(settings["rate"]))


def batches(number, step, size=3):
    return np.random.default_rng((number, step)).normal(size=size).astype(np.float32)


class Study:
    """Members of one or two work directories, and which of them were loaded together."""

    def __init__(self, folder, works=1, rates=RATES, sizes=None, validate=None, steps=12):
        self.held = [open_workdir(folder / f"work{k}", {"seed": k}) for k in range(works)]
        self.works = [work.__enter__() for work in self.held]
        self.sizes, self.validate = sizes or [3] * len(rates), validate
        self.loaded: list[list[int]] = []
        patience = None if validate is None else 4
        self.members = [
            StudyMember(work, f"net_{i}", make, {"rate": rate}, steps, 2, patience, self.sizes[i])
            for work in self.works
            for i, rate in enumerate(rates)
        ]

    def begun(self, number):
        i = number % len(self.sizes)
        return make(self.members[number].settings).init({"x": jnp.zeros(self.sizes[i])}, jax.random.key(number))

    def load(self, numbers):
        self.loaded.append(numbers)
        return [
            MemberTraining(
                self.begun(i), partial(batches, i, size=self.sizes[i % len(self.sizes)]), lambda params: dict(params),
                self.validate,
            )
            for i in numbers
        ]  # fmt: skip

    def train(self, strategy="loop", **options):
        kept = train(self.members, self.load, strategy, **options)
        self.close()
        return kept

    def close(self):
        for one in self.held:
            one.__exit__(None, None, None)

    def alone(self, number):
        state = self.begun(number)
        algorithm, m = make(self.members[number].settings), self.members[number]
        inputs = partial(batches, number, size=self.sizes[number % len(self.sizes)])
        return iterate.last(iterate.loop(algorithm, state, m.steps, inputs=inputs), state).params["x"]


def lines(work: WorkDir):
    return [json.loads(line) for line in (work.path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("strategy", "width", "together"), [("loop", None, 1), ("vmap", None, 10), ("vmap", 4, 4)])
def test_members_of_two_studies_are_those_trained_alone(strategy, width, together, tmp_path):
    both = Study(tmp_path, works=2)
    traced.clear()
    kept = both.train(strategy, width=width)
    assert len(traced) <= 1  # also where the last part is filled up
    assert [len(part) for part in both.loaded][:-1] == [together] * (len(both.loaded) - 1)
    for number, one in enumerate(kept):
        np.testing.assert_allclose(one["x"], both.alone(number), rtol=1e-5, atol=1e-6)
    rows = lines(both.works[1])
    assert sorted({row["member"] for row in rows}) == [f"net_{i}" for i in range(5)] and len(rows) == 5 * 6


def test_it_is_done_once(tmp_path):
    Study(tmp_path).train()
    again = Study(tmp_path)
    again.train()
    assert not again.loaded


def test_data_of_several_shapes_do_not_meet(tmp_path):
    mixed = Study(tmp_path, sizes=[3, 3, 4, 3, 4])
    kept = mixed.train("vmap")
    assert mixed.loaded == [[0, 1, 3], [2, 4]]
    for number, one in enumerate(kept):
        np.testing.assert_allclose(one["x"], mixed.alone(number), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
@pytest.mark.parametrize("validate", [None, lambda params: float(abs(params["x"][0] - 0.02))])
def test_a_killed_study_goes_on_to_the_same_bits(strategy, validate, tmp_path, monkeypatch):
    whole = Study(tmp_path / "whole", validate=validate)
    kept = whole.train(strategy)

    def killed(work, row):
        if row["member"] == "net_2" and row["step"] == 6:
            raise KeyboardInterrupt
        append(work, row)

    append = study.append_jsonl
    monkeypatch.setattr(study, "append_jsonl", killed)
    dead = Study(tmp_path / "killed", validate=validate)
    with pytest.raises(KeyboardInterrupt):
        dead.train(strategy, seconds=0.0)
    dead.close()
    monkeypatch.setattr(study, "append_jsonl", append)
    late = Study(tmp_path / "killed", validate=validate)
    begun = []
    monkeypatch.setattr(study, "fit", lambda *a, begin, **b: fit(*a, begin=lambda s: begun.append(s) or begin(s), **b))
    resumed = late.train(strategy, seconds=0.0)
    assert begun[0].tolist() == ([4] if strategy == "loop" else [4] * 5)  # the last checkpoint before
    assert late.loaded == ([[2], [3], [4]] if strategy == "loop" else [[0, 1, 2, 3, 4]])
    for one, other in zip(resumed, kept, strict=True):
        np.testing.assert_array_equal(one["x"], other["x"])
    order = lambda work: sorted((row["member"], row["step"], row["loss"]) for row in lines(work))  # noqa: E731
    assert order(late.works[0]) == order(whole.works[0])
    assert not list(late.works[0].checkpoints.glob("population_*"))


fit = study.fit


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_a_member_that_diverges_is_an_error_and_is_tried_again(strategy, tmp_path):
    rates = (0.1, 9.0, 0.2)
    broken = Study(tmp_path, rates=rates)
    kept = broken.train(strategy)
    assert isinstance(kept[1], DataError) and "net_1: the loss is not finite after step 1" in str(kept[1])
    for number in (0, 2):
        np.testing.assert_allclose(kept[number]["x"], broken.alone(number), rtol=1e-5, atol=1e-6)
    again = Study(tmp_path, rates=rates)
    again.train(strategy)
    assert again.loaded == [[1]]


def test_members_side_by_side_are_all_validated_or_none(tmp_path):
    mixed = Study(tmp_path, validate=lambda params: 0.0)
    load = mixed.load
    mixed.load = lambda numbers: [one._replace(validate=None) if i == 3 else one for i, one in enumerate(load(numbers))]
    with pytest.raises(DataError, match="net_3: no validation loss"):
        mixed.train("vmap")
    mixed.load = lambda numbers: [one._replace(average=True) for one in load(numbers)]
    with pytest.raises(DataError, match="a_net_0: the average of a training that stops early"):
        train([m._replace(name=f"a_{m.name}") for m in mixed.members], mixed.load, "vmap")
    mixed.close()


def test_what_a_member_takes_of_an_accelerator_is_asked_of_one_of_them(tmp_path, monkeypatch):
    some = Study(tmp_path)
    assert study._bytes_per_member(some.members, some.load, 2, None) is None  # a CPU has memory enough
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = study._bytes_per_member(some.members, some.load, 2, None)
    assert found is not None and found > 4 * 3 * 3 and some.loaded == [[2]]  # parameters, average, batch
    assert study._bytes_per_member(some.members, some.load, 2, 8) is None  # a width was given
    some.close()
