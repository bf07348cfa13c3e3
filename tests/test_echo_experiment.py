"""The study of wrong labels: configs trained together are what each is alone; a network and scores of one's own."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.labels.scores import LabelScore, built_in
from medjax.running.config import load_config
from medjax.running.modules import load_module
from medjax.running.sweep import group_members, plan_sweep
from medjax.running.workdir import WorkDir, open_workdir
from tests.labels.two_layers import TWO_LAYERS

ROOT = Path(__file__).parents[1]
SMALL = (
    "data.train=12", "data.test=4", "data.size=16", "errors.kinds=('swap',)", "training.epochs=6",
    "training.probe_every=3", "training.latest_judgement=3",
)  # fmt: skip
SCORES = {"worst": built_in()["loss_mean"]}


@pytest.fixture(scope="module")
def study():
    return load_module(ROOT / "experiments" / "echo_label_errors.py", "experiments.echo_label_errors")


def config(*overrides: str):
    return load_config(ROOT / "configs" / "echo_label_errors.py", "tiny", (*SMALL, *overrides))


def work(folder: Path) -> WorkDir:
    with open_workdir(folder, {}) as held:
        return held


def test_configs_together_are_each_as_alone_and_a_bad_one_ends_alone(study, tmp_path):
    changed = ["seed=0", "seed=4", "training.rate=1e30", "data.hard=0.5"]
    with pytest.raises(ConfigError, match=r"expected some of errors\.fractions"):
        config("errors.strategy_fractions=(0.5,)")
    changed[0] += " errors.trusted_fractions=(0.25,)"
    loop = "population.strategy=loop"  # by vmap: tests/labels/test_comparison.py
    configs = [config(loop, *one.split()) for one in changed]
    works = [work(tmp_path / str(k)) for k in range(len(configs))]
    found = study.population(configs, works, network=TWO_LAYERS, label_scores=SCORES)
    assert isinstance(found[2], DataError)
    alone = study.run(configs[3], work(tmp_path / "alone"), network=lambda _: TWO_LAYERS, label_scores=SCORES)
    assert alone.metrics.keys() == found[3].metrics.keys()
    values = np.array([[one[name] for name in alone.metrics] for one in (alone.metrics, found[3].metrics)])
    np.testing.assert_allclose(*values, rtol=1e-5)
    assert found[0].metrics["dice/plain/swap/0.25"] != found[1].metrics["dice/plain/swap/0.25"]
    assert {"dice/drop_trusted/swap/0.25", "labels_all/refurbish_loss_trusted/swap/0.25"} <= found[0].metrics.keys()
    assert not list(tmp_path.glob("*/checkpoints/*_training*"))
    with pytest.raises(DataError, match="not finite after step"):
        study.run(configs[2], work(tmp_path / "wild"), network=TWO_LAYERS, label_scores=SCORES)


def test_scores_of_ones_own_are_columns(study, tmp_path):
    worst = LabelScore(
        lambda images, space: jnp.zeros(images),
        lambda state, index, probe: state.at[index].max(probe.losses["cross_entropy"]),
        lambda state, labels: state,
    )
    one = study.run(config(), work(tmp_path / "one"), network=TWO_LAYERS, label_scores=worst)
    instead = study.run(config(), work(tmp_path / "instead"), network=TWO_LAYERS, label_scores={"mine": worst})
    assert {row[0] for row in one.table.rows} == {*built_in(), "score"}
    assert {row[0] for row in instead.table.rows} == {"dice_mean", "vog", "mine"}
    assert instead.metrics["auroc/mine/swap/0.25"] == one.metrics["auroc/score/swap/0.25"]
    assert instead.metrics["dice/drop/swap/0.25"] == pytest.approx(one.metrics["dice/drop/swap/0.25"], rel=1e-3)


def test_what_a_sweep_trains_together(study):
    over = ["seed=0..1", "training.rate=0.01,0.02", "errors.target_dice.random=0.6,0.7", "training.epochs=6,8"]
    sweep = plan_sweep("echo_label_errors", over, "tiny", root=ROOT)
    assert [len(group) for group in group_members(sweep.members, study)] == [8, 8]
