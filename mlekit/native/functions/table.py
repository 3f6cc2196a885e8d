"""Which function of vectors stands for which of JAX's primitives."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from . import (
    bessel,
    digamma,
    error_function,
    exponential,
    gamma,
    hyperbolic,
    inverse_error_function,
    inverse_hyperbolic,
    inverse_trigonometric,
    logarithm,
    polygamma,
    power,
    remainder,
    trigonometric,
)

#: By the name of the primitive: called with lanes and one vector for each operand, gives a vector. None of them
#: leaves the block that the builder is in.
FUNCTIONS: dict[str, Callable[..., ir.Value]] = {
    "acos": inverse_trigonometric.acos,
    "acosh": inverse_hyperbolic.acosh,
    "asin": inverse_trigonometric.asin,
    "asinh": inverse_hyperbolic.asinh,
    "atan": inverse_trigonometric.atan,
    "atan2": inverse_trigonometric.atan2,
    "atanh": inverse_hyperbolic.atanh,
    "bessel_i0e": bessel.bessel_i0e,
    "bessel_i1e": bessel.bessel_i1e,
    "cbrt": power.cbrt,
    "cos": trigonometric.cos,
    "cosh": hyperbolic.cosh,
    "digamma": digamma.digamma,
    "erf": error_function.erf,
    "erf_inv": inverse_error_function.erf_inv,
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
    "rem": remainder.rem,
    "rsqrt": power.rsqrt,
    "sin": trigonometric.sin,
    "sinh": hyperbolic.sinh,
    "sqrt": power.sqrt,
    "square": power.square,
    "tan": trigonometric.tan,
    "tanh": hyperbolic.tanh,
}
