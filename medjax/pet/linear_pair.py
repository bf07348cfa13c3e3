"""A linear function and its transpose as two JAX primitives: differentiable in both modes, and a batch folds in."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array


def linear_pair(
    name: str, implementations: tuple[Callable[..., Array], Callable[..., Array]]
) -> tuple[Primitive, Primitive]:
    """Two primitives, linear in their first argument and each other's transpose; a batch folds into the last axis.

    (`custom_vjp` knows no forward mode and `custom_vmap` no reverse mode; a primitive has both.)
    """
    pair = Primitive(name), Primitive(f"{name}_transpose")
    for primitive, transpose, implementation in zip(pair, pair[::-1], implementations, strict=True):
        primitive.def_impl(partial(_evaluate, implementation))
        primitive.def_abstract_eval(partial(_shape, implementation))
        mlir.register_lowering(primitive, mlir.lower_fun(implementation, multiple_results=False))
        ad.primitive_jvps[primitive] = partial(_derivative, primitive)
        ad.primitive_transposes[primitive] = partial(_transpose, transpose)
        batching.primitive_batchers[primitive] = partial(_fold, primitive)
    return pair


@partial(jax.jit, static_argnames=("implementation", "system"))
def _jitted(implementation: Callable[..., Array], operand: Any, leaves: list[Any], system: Any) -> Array:
    return implementation(operand, *leaves, system=system)


def _evaluate(implementation: Callable[..., Array], operand: Any, *leaves: Any, system: Any) -> Array:
    return _jitted(implementation, operand, list(leaves), system)


def _shape(implementation: Callable[..., Array], operand: Any, *leaves: Any, system: Any) -> Any:
    structs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (operand, *leaves)]
    out = jax.eval_shape(partial(implementation, system=system), *structs)
    return operand.update(shape=out.shape, dtype=out.dtype)


def _derivative(primitive: Primitive, primals: Any, tangents: Any, *, system: Any) -> Any:
    operand, *leaves = primals
    out = primitive.bind(operand, *leaves, system=system)
    tangent = tangents[0]
    if isinstance(tangent, ad.Zero):
        return out, ad.Zero(jax.typeof(out).to_tangent_aval())
    return out, primitive.bind(tangent, *leaves, system=system)


def _transpose(transpose: Primitive, cotangent: Any, operand: Any, *leaves: Array, system: Any) -> Any:
    if isinstance(cotangent, ad.Zero):
        return (ad.Zero(operand.aval), *(None for _ in leaves))
    return (transpose.bind(cotangent, *leaves, system=system), *(None for _ in leaves))


def _fold(primitive: Primitive, arguments: Any, axes: Any, *, system: Any) -> Any:
    """A batch is a longer last axis (of slices, or of volumes); only a batch of systems needs a loop."""
    operand, *leaves = arguments
    if any(axis is not None for axis in axes[1:]):
        return _loop(primitive, arguments, axes, system)
    last = jnp.moveaxis(operand, axes[0], -1)
    size = last.shape[-1]
    out = primitive.bind(last.reshape(*last.shape[:-2], -1), *leaves, system=system)
    return out.reshape(*out.shape[:-1], -1, size), out.ndim


def _loop(primitive: Primitive, arguments: Any, axes: Any, system: Any) -> Any:
    batched = [jnp.moveaxis(a, axis, 0) for a, axis in zip(arguments, axes, strict=True) if axis is not None]

    def one(members: list[Array]) -> Array:
        rest = iter(members)
        return primitive.bind(
            *(next(rest) if axis is not None else a for a, axis in zip(arguments, axes, strict=True)), system=system
        )

    return lax.map(one, batched), 0
