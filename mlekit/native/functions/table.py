"""Which function of vectors stands for which of JAX's primitives."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from . import digamma, error_function, exponential, gamma, hyperbolic, logarithm, polygamma, power

#: By the name of the primitive: called with lanes and one vector for each operand, gives a vector. None of them
#: leaves the block that the builder is in.
FUNCTIONS: dict[str, Callable[..., ir.Value]] = {
    "cbrt": power.cbrt,
    "cosh": hyperbolic.cosh,
    "digamma": digamma.digamma,
    "erf": error_function.erf,
    "erfc": error_function.erfc,
    "exp": exponential.exp,
    "exp2": exponential.exp2,
    "expm1": exponential.expm1,
    "lgamma": gamma.lgamma,
    "log": logarithm.log,
    "log1p": logarithm.log1p,
    "logistic": hyperbolic.logistic,
    "polygamma": polygamma.polygamma,
    "pow": power.pow,
    "rsqrt": power.rsqrt,
    "sinh": hyperbolic.sinh,
    "sqrt": power.sqrt,
    "square": power.square,
    "tanh": hyperbolic.tanh,
}
