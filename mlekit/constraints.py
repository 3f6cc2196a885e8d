"""What a parameter may be: one small class a constraint, each a map from a free array to natural units.

Every map is smooth and one-to-one from the whole of real space onto the inside of its constraint, so a solver
moves freely and never leaves it. Leading axes hold further, independent elements: a `(3, 4)` simplex leaf is
three simplexes of four shares. What the methods promise is written once, in `Constraint`.
"""
# ruff: noqa: D102 - the five methods are documented in `Constraint`, their formulas and shapes by each class

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike


class Constraint(eqx.Module):
    """A map between a free array and a parameter in natural units; the base of every constraint."""

    @abc.abstractmethod
    def forward(self, free: ArrayLike) -> Array:
        """Natural value of a free array, in the free array's dtype."""

    @abc.abstractmethod
    def inverse(self, value: ArrayLike) -> Array:
        """Free array of a natural value; NaN or infinite where the value is not inside."""

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        """The open interval each single element lies in: two arrays that broadcast to the value's shape."""
        return _like(-np.inf, value), _like(np.inf, value)

    def problem(self, value: np.ndarray) -> str | None:
        """None when a concrete value lies strictly inside, else what is wanted and what would do."""
        with jax.ensure_compile_time_eval():  # inside `jit` too, known bounds stay numbers
            ends = self.range(value)
        if any(isinstance(end, jax.core.Tracer) for end in ends):
            return _problem(value, lambda v: True, "", "start it inside its bounds")
        low, high = np.asarray(ends[0]), np.asarray(ends[1])
        if np.all(np.isinf(low) & np.isinf(high)):
            wanted, start = "be a number", np.asarray(0.0)
        elif np.all(np.isinf(high)):
            wanted, start = f"be greater than {_show(low)}", low + np.maximum(1, abs(low) / 100)
        elif np.all(np.isinf(low)):
            wanted, start = f"be less than {_show(high)}", high - np.maximum(1, abs(high) / 100)
        else:
            wanted, start = f"lie between {_show(low)} and {_show(high)}, on neither", low + (high - low) / 2
        hint = f"start it at a number such as {_show(start)}"
        return _problem(value, lambda v: (low < v) & (v < high), wanted, hint)

    def free_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the free array of a parameter of `shape`; a `ValueError` where that does not suit."""
        for bound in map(np.shape, jax.tree.leaves(self)):
            if len(bound) > len(shape) or any(b not in (1, n) for b, n in zip(bound[::-1], shape[::-1])):
                raise ValueError(f"bounds of shape {bound} do not broadcast to a parameter of shape {shape}")
        return shape


class Unconstrained(Constraint):
    """Any real number: `value = free`.

    Example:
        >>> print(unconstrained.forward(-2.5))
        -2.5
    """

    def forward(self, free: ArrayLike) -> Array:
        return jnp.asarray(free)

    def inverse(self, value: ArrayLike) -> Array:
        return jnp.asarray(value)


class GreaterThan(Constraint):
    """Greater than a bound: `value = low + exp(free)`, any shape; `positive` is the one with bound zero.

    Args:
        low: a finite number, or an array that broadcasts against the parameter; else a `ValueError`.

    Example:
        >>> print(greater_than(2.0).forward(0.0), positive.problem(np.zeros(())))
        3.0 must be greater than 0.0; start it at a number such as 1.0
    """

    low: float | Array

    def __init__(self, low: Any):
        self.low = _bound("greater_than(low)", low)

    def forward(self, free: ArrayLike) -> Array:
        return _like(self.low, free) + jnp.exp(free)

    def inverse(self, value: ArrayLike) -> Array:
        return jnp.log(value - _like(self.low, value))

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        return _like(self.low, value), _like(np.inf, value)


class LessThan(Constraint):
    """Less than a bound: `value = high - exp(free)`, any shape; it falls as `free` rises.

    Args:
        high: a finite number, or an array that broadcasts against the parameter; else a `ValueError`.

    Example:
        >>> print(less_than(2.0).forward(0.0))
        1.0
    """

    high: float | Array

    def __init__(self, high: Any):
        self.high = _bound("less_than(high)", high)

    def forward(self, free: ArrayLike) -> Array:
        return _like(self.high, free) - jnp.exp(free)

    def inverse(self, value: ArrayLike) -> Array:
        return jnp.log(_like(self.high, value) - value)

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        return _like(-np.inf, value), _like(self.high, value)


class Interval(Constraint):
    """Between two bounds: `value = low + (high - low) * sigmoid(free)`, any shape.

    Args:
        low: a finite number, or an array that broadcasts against the parameter.
        high: likewise, greater than `low` everywhere.

    Raises:
        ValueError: bounds that are not finite or not in order.

    Example:
        >>> print(interval(-1.0, 3.0).forward(0.0))
        1.0
    """

    low: float | Array
    high: float | Array

    def __init__(self, low: Any, high: Any):
        self.low, self.high = _bound("interval(low, high)", low), _bound("interval(low, high)", high)
        if isinstance(self.low, jax.core.Tracer) or isinstance(self.high, jax.core.Tracer):
            return  # known only while a compiled function runs
        with np.errstate(over="ignore"):  # a width that overflows would make every value infinite
            width = np.asarray(self.high) - np.asarray(self.low)
        if not np.all((width > 0) & np.isfinite(width)):
            raise ValueError(f"interval(low, high) wants low < high, finitely apart; it got {low=}, {high=}")

    def forward(self, free: ArrayLike) -> Array:
        free, low, high = jnp.asarray(free), _like(self.low, free), _like(self.high, free)
        # Measured from the nearer bound the sigmoid is at most one half: no digits are lost beside either
        # bound, and rounding cannot carry the value past one.
        lower_half = free < 0
        step = (high - low) * jax.nn.sigmoid(jnp.where(lower_half, free, -free))
        return jnp.where(lower_half, low + step, high - step)

    def inverse(self, value: ArrayLike) -> Array:
        low, high = _like(self.low, value), _like(self.high, value)
        # Shares of the width, because a difference of the logs of very large numbers would cancel.
        return jnp.log((value - low) / (high - low)) - jnp.log((high - value) / (high - low))

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        return _like(self.low, value), _like(self.high, value)


class Simplex(Constraint):
    """Positive shares `(..., k)` that sum to one: `value = softmax([free, 0])`, with `k - 1` free.

    Example:
        >>> print(simplex.forward(jnp.zeros(3)))
        [0.25 0.25 0.25 0.25]

    Source: the additive log-ratio of Aitchison (1986), The Statistical Analysis of Compositional Data.
    """

    def forward(self, free: ArrayLike) -> Array:
        free = jnp.asarray(free)
        return jax.nn.softmax(jnp.concatenate([free, jnp.zeros_like(free, shape=(*free.shape[:-1], 1))], -1))

    def inverse(self, value: ArrayLike) -> Array:
        value = jnp.asarray(value)
        logs, off = jnp.log(value), abs(jnp.sum(value, -1, keepdims=True) - 1)
        return jnp.where(off <= _slack(value), logs[..., :-1] - logs[..., -1:], jnp.nan)

    def free_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], _last_axis("simplex", shape) - 1)

    def problem(self, value: np.ndarray) -> str | None:
        def inside(v: np.ndarray) -> Any:
            return (v > 0) & (abs(v.sum(-1, keepdims=True) - 1) <= _slack(v))

        hint = f"start every share at 1/{value.shape[-1]}"
        return _problem(value, inside, "be shares greater than 0 that sum to 1 on the last axis", hint)

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        # A lone share can only be one.
        return _like(0.0 if np.shape(value)[-1] > 1 else 1.0, value), _like(1.0, value)


class Ordered(Constraint):
    """Strictly increasing on the last axis: `value[0] = free[0]`, `value[i] = value[i - 1] + exp(free[i])`.

    Example:
        >>> print(ordered.forward(jnp.array([-1.0, 0.0, 0.0])))
        [-1.  0.  1.]

    Source: the cut-points of McCullagh (1980), Regression Models for Ordinal Data, as a start and log-gaps.
    """

    def forward(self, free: ArrayLike) -> Array:
        free = jnp.asarray(free)
        return jnp.cumsum(jnp.concatenate([free[..., :1], jnp.exp(free[..., 1:])], -1), -1)

    def inverse(self, value: ArrayLike) -> Array:
        value = jnp.asarray(value)
        return jnp.concatenate([value[..., :1], jnp.log(jnp.diff(value, axis=-1))], -1)

    def free_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], _last_axis("ordered", shape))

    def problem(self, value: np.ndarray) -> str | None:
        hint = f"start it at increasing numbers such as {_show(np.arange(1.0 * value.shape[-1]))}"
        return _problem(value, lambda v: np.diff(v) > 0, "increase strictly along the last axis", hint)


class PositiveDefinite(Constraint):
    """Symmetric positive-definite matrices `(..., d, d)`: `value = L Lᵀ`, the diagonal of `L` in logs.

    The free array, `(..., d (d + 1) / 2)`, is the lower triangle of `L` row by row.

    Example:
        >>> print(positive_definite.forward(jnp.array([0.0, 3.0, 0.0])))
        [[ 1.  3.]
         [ 3. 10.]]

    Source: the log-Cholesky form of Pinheiro & Bates (1996), Unconstrained Parametrizations for
    Variance-Covariance Matrices, Statistics and Computing 6.
    """

    def forward(self, free: ArrayLike) -> Array:
        lower, diagonal = _fill_lower(free, 0)
        # The inner `where` keeps large entries off the diagonal out of `exp`: its overflow would turn the
        # derivative into NaN although it is not selected.
        return _gram(jnp.where(diagonal, jnp.exp(jnp.where(diagonal, lower, 0)), lower))

    def inverse(self, value: ArrayLike) -> Array:
        root = jnp.linalg.cholesky(jnp.asarray(value))
        diagonal = np.eye(root.shape[-1], dtype=bool)
        free = _take_lower(jnp.where(diagonal, jnp.log(jnp.where(diagonal, root, 1)), root), 0)
        return jnp.where(_symmetric(value, jnp)[..., None], free, jnp.nan)

    def free_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        d = _last_axis("positive_definite", shape, square=True)
        return (*shape[:-2], d * (d + 1) // 2)

    def problem(self, value: np.ndarray) -> str | None:
        hint = f"start it at a matrix such as np.eye({value.shape[-1]})"
        return _problem(value, _definite, "be symmetric and positive definite", hint)

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        diagonal = np.eye(np.shape(value)[-1], dtype=bool)
        return _like(np.where(diagonal, 0.0, -np.inf), value), _like(np.inf, value)


class Correlation(Constraint):
    """Correlation matrices `(..., d, d)`: `value = L Lᵀ`, the rows of `L` of length one.

    The free array, `(..., d (d - 1) / 2)`, goes row by row below the diagonal. `z = tanh(free)` are partial
    correlations: `L[i, j] = z[i, j] Π_{k<j} √(1 - z[i, k]²)` and `L[i, i] = Π_{k<i} √(1 - z[i, k]²)`.

    Example:
        >>> print(correlation.forward(jnp.zeros(1)))
        [[1. 0.]
         [0. 1.]]

    Source: partial correlations as free coordinates, from Lewandowski, Kurowicka & Joe (2009), Generating
    Random Correlation Matrices Based on Vines and Extended Onion Method, J. Multivariate Analysis 100.
    """

    def forward(self, free: ArrayLike) -> Array:
        lower, diagonal = _fill_lower(free, 1)
        # √(1 - tanh²) = 1 / cosh, whose log stays exact where 1 - tanh² would round to zero.
        log_cosh = jnp.logaddexp(lower, -lower) - math.log(2)
        before = jnp.pad(jnp.cumsum(log_cosh, -1)[..., :-1], [(0, 0)] * (lower.ndim - 1) + [(1, 0)])
        product = _gram(jnp.where(diagonal, 1, jnp.tanh(lower)) * jnp.exp(-before))
        return jnp.where(diagonal, 1, jnp.clip(product, -1, 1))

    def inverse(self, value: ArrayLike) -> Array:
        value = jnp.asarray(value)
        root = jnp.linalg.cholesky(value)
        # tanh f = L_ij / √(Σ_{k≥j} L_ik²) is the same as sinh f = L_ij / √(Σ_{k>j} L_ik²), which keeps its
        # digits near ±1. Only places below the diagonal are divided: the others would be 0 / 0.
        rest = jnp.cumsum((root**2)[..., ::-1], -1)[..., ::-1]
        free = jnp.arcsinh(_take_lower(root, 1) / jnp.sqrt(_take_lower(jnp.roll(rest, -1, -1), 1)))
        return jnp.where((_unit(value) & _symmetric(value, jnp))[..., None], free, jnp.nan)

    def free_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        d = _last_axis("correlation", shape, square=True)
        return (*shape[:-2], d * (d - 1) // 2)

    def problem(self, value: np.ndarray) -> str | None:
        wanted = "be symmetric and positive definite with ones on the diagonal"
        hint = f"start it at a matrix such as np.eye({value.shape[-1]})"
        return _problem(value, lambda v: np.all(_unit(v)) and _definite(v), wanted, hint)

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        return _like(np.where(np.eye(np.shape(value)[-1], dtype=bool), 1.0, -1.0), value), _like(1.0, value)


class Foreign(Constraint):
    """A bijector of another library: distreqx and TFP (`forward`, `inverse`), numpyro (a call, `.inv`).

    Args:
        bijector: the object, which handles leading axes in its own way.
    """

    bijector: Any

    def forward(self, free: ArrayLike) -> Array:
        free = _like(free, free)
        return jnp.asarray(getattr(self.bijector, "forward", self.bijector)(free), free.dtype)

    def inverse(self, value: ArrayLike) -> Array:
        value = _like(value, value)
        inverse = self.bijector.inverse if hasattr(self.bijector, "inverse") else self.bijector.inv
        return jnp.asarray(inverse(value), value.dtype)

    def free_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        try:
            return jax.eval_shape(self.inverse, jax.ShapeDtypeStruct(shape, jnp.result_type(float))).shape
        except Exception as error:  # whatever the other library raises, the user must see the shape it was
            raise ValueError(
                f"{self.bijector} does not suit a parameter of shape {shape}: {error}"
            ) from error

    def problem(self, value: np.ndarray) -> str | None:
        def inside(v: np.ndarray) -> bool:
            free = self.inverse(v)
            back, slack = self.forward(free), float(jnp.finfo(free.dtype).eps) ** 0.5
            # The absolute slack is in units of the value, which may be of size 1e-6.
            close = np.allclose(back, v, rtol=slack, atol=slack * float(np.max(abs(v), initial=0)))
            return close and bool(jnp.all(jnp.isfinite(free)))

        with jax.ensure_compile_time_eval():  # the value is known inside `jit` too
            hint = f"start it at {_show(self.forward(jnp.zeros(self.free_shape(value.shape))))}, say"
            return _problem(value, inside, f"be a value that {self.bijector} can reach", hint)


class Fixed(eqx.Module):
    """Marks a parameter that keeps its starting value; it is no `Constraint`, for it has nothing to map."""


class Tied(eqx.Module):
    """Marks a parameter that always equals another one.

    Args:
        to: name of the other parameter, as in `Fit.parameter_names`; a `TypeError` if it is no text.

    Example:
        >>> tied(to="scale")
        Tied(to='scale')
    """

    to: str = eqx.field(static=True)

    def __init__(self, to: Any):
        if not isinstance(to, str):
            raise TypeError(f"tied(to=...) wants the name of a parameter such as 'scale'; it got {to!r}")
        self.to = to


def is_constraint(obj: object) -> bool:
    """Whether `obj` may stand as one constraint: one of mlekit's, a marker, or a foreign bijector.

    Example:
        >>> is_constraint(positive), is_constraint({"scale": positive}), is_constraint(None)
        (True, False, False)
    """
    if isinstance(obj, type):  # a class has the methods too, but it is no bijector yet
        return False
    methods = callable(getattr(obj, "forward", None)) and callable(getattr(obj, "inverse", None))
    return isinstance(obj, Fixed | Tied) or methods or (callable(obj) and callable(getattr(obj, "inv", None)))


def as_constraint(obj: Any) -> Constraint | Fixed | Tied:
    """The constraint, or marker, that `obj` stands for; `None` is `unconstrained`, all else a `TypeError`.

    Example:
        >>> as_constraint(None)
        Unconstrained()
    """
    if obj is None:
        return unconstrained
    if not is_constraint(obj):
        raise TypeError(
            "a constraint is None, one of mlekit's such as mle.positive or mle.interval(0, 1), or a bijector "
            f"with forward and inverse; it got {obj!r}{', a class: call it first' * isinstance(obj, type)}"
        )
    return obj if isinstance(obj, Constraint | Fixed | Tied) else Foreign(obj)


def _bound(caller: str, bound: Any) -> float | Array:
    """A plain float for one concrete number, so that it hashes and never promotes; else an array."""
    if isinstance(bound, jax.core.Tracer):
        return bound
    try:
        number = np.asarray(bound, dtype=float)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{caller} wants numbers or arrays; it got {bound!r}") from error
    if not np.all(np.isfinite(number)):
        raise ValueError(f"{caller} wants finite numbers; it got {bound!r}")
    with jax.ensure_compile_time_eval():  # inside `jit` the bound must stay a value that `problem` can read
        return jnp.asarray(number) if number.ndim else float(number)


def _like(bound: ArrayLike, other: ArrayLike) -> Array:
    """The bound in the other's float dtype: float64 bounds must not promote a float32 parameter."""
    return jnp.asarray(bound, jnp.result_type(other, float))


def _problem(value: np.ndarray, inside: Callable[[np.ndarray], Any], wanted: str, hint: str) -> str | None:
    value = np.asarray(value)
    if not np.all(np.isfinite(value)):
        return f"must be finite; {hint}"
    return None if np.all(inside(value)) else f"must {wanted}; {hint}"


def _show(number: ArrayLike) -> str:
    array = np.asarray(number)
    return np.array2string(array, separator=", ", threshold=8) if array.ndim else str(array)


def _last_axis(name: str, shape: tuple[int, ...], square: bool = False) -> int:
    suits = len(shape) > square and shape[-1] > 0 and (not square or shape[-2] == shape[-1])
    if not suits:
        wanted = "square matrices on the last two axes" if square else "a last axis with at least one entry"
        raise ValueError(f"{name} wants {wanted}; the parameter has shape {shape}")
    return shape[-1]


def _slack(value: ArrayLike) -> float:
    """How far sums and symmetry may be off: what rounding, or a start typed with seven digits, leaves."""
    return max(1e-6, np.shape(value)[-1] * float(jnp.finfo(jnp.result_type(value, float)).eps))


def _fill_lower(free: ArrayLike, below: int) -> tuple[Array, np.ndarray]:
    """Vectors laid row by row into lower triangles that begin `below` the diagonal; where the diagonal is."""
    free = jnp.asarray(free)
    d = int((8 * free.shape[-1] + 1) ** 0.5 - 1) // 2 + below
    matrix = jnp.zeros_like(free, shape=(*free.shape[:-1], d, d))
    return matrix.at[(..., *np.tril_indices(d, -below))].set(free), np.eye(d, dtype=bool)


def _take_lower(matrix: Array, below: int) -> Array:
    return matrix[(..., *np.tril_indices(matrix.shape[-1], -below))]


def _gram(root: Array) -> Array:
    """`L Lᵀ` as plain sums: exactly symmetric, and no device shortens the digits as in a matrix product."""
    return jnp.sum(root[..., :, None, :] * root[..., None, :, :], -1)


def _unit(matrix: Any) -> Any:
    return (abs(matrix.diagonal(0, -2, -1) - 1) <= _slack(matrix)).all(-1)


def _symmetric(matrix: Any, xp: Any) -> Any:
    """Which matrices are symmetric to rounding, in units of each row, for rows may differ a million-fold."""
    matrix = xp.asarray(matrix)
    scale = xp.sqrt(abs(matrix.diagonal(0, -2, -1)))
    off = abs(matrix - xp.swapaxes(matrix, -1, -2))
    return xp.all(off <= _slack(matrix) * scale[..., :, None] * scale[..., None, :], (-2, -1))


def _definite(matrix: np.ndarray) -> bool:
    """Whether all matrices are symmetric and their Cholesky factors exist in floating point.

    Demmel (1989, LAPACK working note 14): scaled to a unit diagonal, eigenvalues above d (d + 1) roundings.
    """
    diagonal = matrix.diagonal(0, -2, -1).astype(float)
    if not (np.all(_symmetric(matrix, np)) and np.all(diagonal > 0)):
        return False
    d, scale = matrix.shape[-1], np.sqrt(diagonal)
    scaled = matrix / scale[..., :, None] / scale[..., None, :]
    eps = float(jnp.finfo(jnp.result_type(matrix, float)).eps)
    return bool(np.all(np.linalg.eigvalsh(scaled) > d * (d + 1) * eps))


unconstrained = Unconstrained()
positive = GreaterThan(0.0)
greater_than = GreaterThan
less_than = LessThan
interval = Interval
unit_interval = Interval(0.0, 1.0)
simplex = Simplex()
ordered = Ordered()
positive_definite = PositiveDefinite()
correlation = Correlation()
fixed = Fixed()
tied = Tied
