"""Label flips as populations: members are those trained alone, a killed run goes on, one's own network plugs in."""

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import label_flips
from experiments.flips import members
from experiments.label_flips import cells
from medjax import iterate
from medjax.errors import ConfigError, DataError
from medjax.models.model import Model
from medjax.phantoms.scenes import draw_splits
from medjax.running.arrays import load_arrays, to_numbered_leaves
from medjax.running.config import flatten, load_config
from medjax.running.experiment import Result
from medjax.running.workdir import open_workdir
from medjax.training import study
from medjax.training.batches import from_arrays
from medjax.training.early_stopping import early_stopping, initial_best
from medjax.training.losses import dice_cross_entropy
from medjax.training.state import trainer

CONFIG = Path(__file__).parents[1] / "configs" / "label_flips.py"
RULES = {
    "last": ("training.selection=last", "training.cosine=True"),
    "validation": ("training.selection=validation", "training.cosine=False", "training.patience=1"),
}
traced: list[int] = []


def init(key, image):
    weights = 0.3 * jax.random.normal(key, (5 * 5 * image.shape[-1] * 3,))
    return weights.reshape(5, 5, image.shape[-1], 3), jnp.zeros(3)  # any pytree is good enough


def apply(params, image, key=None):
    """A network of one's own: a single convolution, compiled in no time."""
    traced.append(image.shape[0])
    kernel, bias = params
    layout = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(jnp.asarray(image), kernel, (1, 1), "SAME", dimension_numbers=layout)
    return y + bias.reshape(1, 1, 1, 3)


def of_two_levels(params, image, key=None):
    logits = apply(params, image)
    return logits, logits[:, ::2, ::2]


NETWORK, SUPERVISED = Model(init, apply), Model(init, of_two_levels)  # SUPERVISED deeply: finest logits first
BOTH = "('erm','group_dro')"


def configured(rule="last", methods=BOTH, rate=0.3, strategy="loop"):
    """Two seeds of each method at one correlation."""
    options = {"methods": methods, "correlations": "(0.9,)", "population.strategy": strategy}
    options |= {"scenes.train": 40, "scenes.validation": 40, "scenes.test": 40}  # equal: one shape to compile
    options |= {"training.steps": 12, "training.validate_every": 2, "training.rate": rate}
    return load_config(CONFIG, "tiny", [*(f"{key}={value}" for key, value in options.items()), *RULES[rule]])


def trained(folder, *configs):
    """Every network of these configs, without the report."""
    with ExitStack() as held:
        works = [held.enter_context(open_workdir(folder / str(k), {"config": c})) for k, c in enumerate(configs)]
        return members.train([case for one in zip(configs, works, strict=True) for case in cells(*one, NETWORK)])


def kept(folder):
    return {file.stem: load_arrays(file) for file in sorted((folder / "checkpoints").glob("*.npz"))}


def close(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), a, b)


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module", params=list(RULES))
def whole(request, tmp_path_factory):
    """Two methods × two seeds, with each rule: kept members, how often a training step was traced, and the log."""
    folder, config = tmp_path_factory.mktemp(request.param), configured(request.param)
    traced.clear()
    trained(folder, config)
    rows = [json.loads(line) for line in (folder / "0" / "metrics.jsonl").read_text().splitlines()]
    return request.param, config, kept(folder / "0"), traced.count(config.training.batch), rows


def test_a_function_of_the_classes_gives_the_network_and_what_is_none_is_said():
    every = cells(configured(), None, lambda classes: NETWORK if classes == 3 else None)
    assert {case.model for case in every} == {NETWORK}
    with pytest.raises(ConfigError, match=r"--part network int: TypeError.*; expected a Model, or a function"):
        cells(configured(), None, 3)
    with pytest.raises(ConfigError, match=r"figures.correlation 0.9; expected one of correlations \(0.5,\)"):
        cells(load_config(CONFIG, "tiny", ["correlations=(0.5,)"]), None, NETWORK)


def test_a_step_is_compiled_once_for_erm_and_once_for_group_dro(whole):
    assert len(whole[2]) == 4 and whole[3] == 2


def test_a_member_is_what_it_is_alone_to_the_bit(whole, tmp_path):
    _, config, together, *_ = whole
    for case in cells(config, None, NETWORK):
        with open_workdir(tmp_path / members.member(case).name, {}) as work:
            [alone] = members.train([case._replace(work=work)])
        tree = together[members.member(case).name]
        equal(tree["params"], alone.params)
        equal(tree["assessment"], alone.assessment._asdict())


def test_side_by_side_under_vmap_it_is_the_same_to_rounding(whole, tmp_path):
    trained(tmp_path, configured(whole[0], strategy="vmap"))
    params = [{name: tree["params"] for name, tree in some.items()} for some in (kept(tmp_path / "0"), whole[2])]
    close(*params)


def test_erm_is_the_loop_written_by_hand(whole):
    """Both rules, against early stopping of a single training."""
    rule, config, together, _, rows = whole
    t, key = config.training, jax.random.fold_in(jax.random.key(0), 1)
    data = draw_splits(jax.random.key(0), 0.9, 1, **config.scenes)

    def loss(params, batch, key):
        return jnp.mean(dice_cross_entropy(apply(params, batch.image), jnp.asarray(batch.label)))

    warm = optax.join_schedules([lambda n: t.rate * n, optax.cosine_decay_schedule(t.rate, 11, 0.1)], [1])
    algorithm = trainer(loss, optax.adam(warm if t.cosine else t.rate))
    state = algorithm.init(init(jax.random.fold_in(key, 0), data.train.image), jax.random.fold_in(key, 1))
    states = iterate.loop(algorithm, state, t.steps, inputs=from_arrays(data.train, t.batch, 1), every=t.validate_every)
    if rule == "last":
        wanted = iterate.last(states, state)
    else:
        losses = []

        def validate(state):
            losses.append(float(loss(state.params, data.validation, key)))
            return losses[-1]

        *_, (last, _, best) = early_stopping(states, initial_best(state), validate, 2)
        wanted = best.state
        assert 0 < int(wanted.step) < int(last.step) < t.steps  # it did stop early
        logged = [row["validation"] for row in rows if row["member"] == "erm_0.9_1"]
        np.testing.assert_allclose(logged, losses, rtol=1e-3)
    close(together["erm_0.9_1"]["params"], to_numbered_leaves(wanted.params))


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_a_killed_run_goes_on_and_gives_the_same(strategy, tmp_path, monkeypatch):
    config = configured(strategy=strategy)
    trained(tmp_path / "whole", config)
    append = study.append_jsonl

    def killed(work, row):
        if row["member"] == "erm_0.9_1" and row["step"] == 6:
            raise KeyboardInterrupt
        append(work, row)

    monkeypatch.setattr(members.study, "train", partial(study.train, seconds=0.0))
    monkeypatch.setattr(study, "append_jsonl", killed)
    dead = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        trained(dead, config)
    assert list((dead / "0" / "checkpoints").glob("population_*"))
    assert list(kept(dead / "0")) == (["erm_0.9_0"] if strategy == "loop" else [])
    monkeypatch.setattr(study, "append_jsonl", append)
    trained(dead, config)
    equal(kept(dead / "0"), kept(tmp_path / "whole" / "0"))
    logs = [(folder / "0" / "metrics.jsonl").read_text().splitlines() for folder in (dead, tmp_path / "whole")]
    assert sorted(logs[0]) == sorted(logs[1]) and len(logs[0]) == 4 * 6


def test_configs_train_as_one_population_and_one_that_diverges_fails_alone(tmp_path, monkeypatch):
    configs = [configured(methods="('erm',)", rate=rate, strategy="vmap") for rate in (0.3, 1e38)]
    together, fit = [], study.fit
    monkeypatch.setattr(study, "fit", lambda *a, **b: together.append(len(b["inputs"])) or fit(*a, **b))
    with open_workdir(tmp_path / "0", {}) as good, open_workdir(tmp_path / "1", {}) as bad:
        result, error = label_flips.population(configs, [good, bad], network=SUPERVISED)
    assert together == [4] and isinstance(error, DataError) and "the loss is not finite" in str(error)
    assert isinstance(result, Result) and (tmp_path / "0" / "figures" / "flipped.png").is_file()
    with open_workdir(tmp_path / "alone", {}) as work:
        alone = label_flips.run(configs[0], work, network=SUPERVISED)
    close(kept(tmp_path / "0"), kept(tmp_path / "alone"))
    assert alone.metrics.keys() == result.metrics.keys()
    assert result.metrics["flip/erm/0.9"] == pytest.approx(alone.metrics["flip/erm/0.9"], rel=1e-3)
    with open_workdir(tmp_path / "2", {}) as work, pytest.raises(DataError, match="the loss is not finite"):
        label_flips.run(configs[1], work, network=SUPERVISED)


def test_traced_keys_are_the_config_s_and_make_no_other_kind_of_member():
    base = load_config(CONFIG, "tiny")
    assert set(label_flips.TRACED) <= flatten(base).keys()

    def member(*overrides):
        config = load_config(CONFIG, "tiny", overrides)
        return members.member(cells(config, None, NETWORK)[0])

    traced, other = member("seed=3", "training.rate=0.5", "scenes.noise=0.3"), member("scenes.side=20")
    assert traced.make == other.make == member().make
    assert traced.kind == member().kind != other.kind  # images of another size do not stack


def test_a_network_that_does_not_fit_is_refused_before_anything_is_drawn(tmp_path):
    """Or a function of the number of classes, as for the tools, makes one that does."""
    config = load_config(CONFIG, "tiny", ())
    with open_workdir(tmp_path / "a", {}) as work:
        assert cells(config, work, lambda classes: NETWORK if classes == 3 else None)[0].model == NETWORK
        with pytest.raises(ConfigError, match="--part network int: TypeError"):
            cells(config, work, 3)
        with pytest.raises(DataError, match=r"gives \(1, 8, 16, 3\) for an .*; expected \(1, 16, 16, 3\)"):
            cells(config, work, Model(init, lambda params, image, key=None: apply(params, image)[:, ::2]))
