"""The plan of a run: FLOPs, bytes and memory known in closed form, numbers of steps, and refusals."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import lax

from medjax.errors import ConfigError
from medjax.running.plan import Stage, array, cost_of, plan_experiment, training_stage
from medjax.training.state import trainer

ROOT = Path(__file__).parents[2]
M, K, N = 64, 32, 16
PRODUCT = 2 * M * K * N


def product(a, b):
    return jnp.matmul(a, b, precision="highest")


def test_a_matrix_product_has_two_flops_for_each_multiplication_and_moves_its_operands_and_result():
    cost = cost_of(Stage("product", product, (array(M, K), array(K, N)), 3))
    assert (cost.flops, cost.number) == (PRODUCT, 3)
    assert cost.bytes == 4 * (M * K + K * N + M * N)
    assert cost.data == 4 * (M * K + K * N)
    assert cost.activations == 4 * M * N


def test_a_convolution_has_the_flops_of_its_taps_inside_the_image():
    def convolve(x, kernel):
        return lax.conv(x, kernel, (1, 1), "VALID", precision="highest")

    cost = cost_of(Stage("convolution", convolve, (array(2, 3, 12, 10), array(5, 3, 3, 3)), 1))
    assert cost.flops == 2 * 2 * (10 * 8) * 5 * (3 * 9)


def test_of_a_platforms_branches_that_of_cuda_counts():
    def twice(x):
        return product(product(x, x), x)

    def chosen(x):
        return lax.platform_dependent(x, cpu=twice, default=lambda x: product(x, x))

    cost, alone = (
        cost_of(Stage("one", function, (array(16, 16),), 1)) for function in (chosen, lambda x: product(x, x))
    )
    assert cost.flops == alone.flops
    assert cost.bytes == pytest.approx(alone.bytes, abs=8)  # and the number of the branch


def test_every_turn_of_a_loop_counts_and_one_whose_end_depends_on_data_takes_the_turns_of_the_stage():
    square = (array(16, 16),)

    def turn(x, _=None):
        return product(x, x), None

    def inner(x, _=None):
        return lax.scan(turn, x, None, length=3)

    one = cost_of(Stage("one", lambda x: turn(x)[0], square, 1)).flops
    scanned = cost_of(Stage("scan", lambda x: lax.scan(turn, x, None, length=7)[0], square, 1)).flops
    nested = cost_of(Stage("nested", lambda x: lax.scan(inner, x, None, length=5)[0], square, 1)).flops
    assert one == 2 * 16**3
    assert scanned == pytest.approx(7 * one, rel=0.01)  # and the counter
    assert nested == pytest.approx(15 * one, rel=0.01)

    def until(x, n):
        return lax.fori_loop(0, n, lambda _, x: product(x, x), x)

    traced = Stage("while", until, (*square, array(dtype=jnp.int32)), 1, turns=9)
    assert cost_of(traced).flops == pytest.approx(9 * one, rel=0.01)


def residuals(layers, block=None):
    """Activations of the gradient of a chain of sines, whose backward pass needs one image a layer."""

    def chain(x, layers=layers):
        for _ in range(layers):
            x = jnp.sin(x)
        return x

    def loss(x):
        if block is None:
            return jnp.sum(chain(x))
        for _ in range(layers // block):
            x = jax.checkpoint(partial(chain, layers=block))(x)
        return jnp.sum(x)

    return cost_of(Stage("sines", jax.grad(loss), (array(1000),), 1)).activations


def test_activations_are_the_residuals_of_the_gradient_and_rematerialised_blocks_keep_their_inputs_alone():
    image = 4 * 1000
    assert residuals(40) - residuals(20) == 20 * image
    assert residuals(40, block=4) - residuals(20, block=4) == 5 * image


def test_a_training_step_tells_parameters_from_the_optimizer_and_nothing_is_allocated():
    def loss(params, batch, key):
        return jnp.mean(product(batch, params) ** 2)

    large = 100_000  # 40 GB of parameters

    def init(key):
        return jnp.zeros((large, large))

    algorithm = trainer(loss, optax.adam(1e-3))
    cost = cost_of(training_stage("training", algorithm, init, (), array(8, large), 5))
    weights = 4 * large**2
    assert cost.parameters == 2 * weights  # and their moving average
    assert cost.optimizer == pytest.approx(2 * weights, rel=1e-6)
    assert cost.flops > 2 * 2 * 8 * large**2  # forward, and the gradient of the parameters
    assert cost.memory > cost.parameters + cost.optimizer + weights  # and the gradient


def test_steps_are_those_of_all_networks_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    costs = plan_experiment("label_flips", "tiny", ["seeds=3", "training.steps=7"], ROOT)
    assert {one.name: one.number for one in costs} == {
        "training": 3 * 2 * 3 * 7,  # seeds, correlations, methods, steps
        "training, GroupDRO": 3 * 2 * 7,
        "test": 3 * 2 * 4,  # 40 images in one batch
    }
    assert not [*tmp_path.iterdir()]
    printed = capsys.readouterr().out
    assert "H100" in printed
    assert "67 TFLOP/s" in printed
    assert "Nothing has been started." in printed


def test_larger_networks_cost_more_and_hours_are_those_of_the_slower_of_arithmetic_and_memory():
    [small], [large] = (
        [one for one in plan_experiment("label_flips", "tiny", [f"model.widths={w}"], ROOT) if one.name == "training"]
        for w in ("(8,8)", "(16,16)")
    )
    assert large.flops > 2 * small.flops
    assert large.parameters > 3 * small.parameters
    seconds = max(small.flops / (0.4 * 67e12), small.bytes / (0.6 * 3.35e12))
    assert small.hours == pytest.approx(small.number * seconds / 3600)


def test_an_experiment_without_a_plan_or_another_part_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="demo cannot be planned: it has no plan") as error:
        plan_experiment("demo", "tiny", (), ROOT)
    assert "\n" not in str(error.value)
    own = tmp_path / "own.py"
    own.write_text("score = 1\n")
    with pytest.raises(ConfigError, match="does not take --part score; expected network"):
        plan_experiment("label_flips", "tiny", (), ROOT, parts=[f"score={own}:score"])
    with pytest.raises(ConfigError, match="geometry=oblique cannot be planned"):
        plan_experiment("pet_likelihood_schedule", "tiny", ["geometry=oblique"], ROOT)
