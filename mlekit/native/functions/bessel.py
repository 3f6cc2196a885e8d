r"""Modified Bessel functions of the first kind, scaled.

Below 10, $e^{-x} I_n(x)$ from a polynomial in $x^2$ whose terms are positive; beyond, from one in $1 / x$, over
$\sqrt x$. The error is below six units in the last place in float64, below one in float32.
"""

from __future__ import annotations

from llvmlite import ir

from ..lanes import Lanes
from .exponential import exp
from .polynomials import Table, horner

#: I₀(x) in x² for |x| ≤ 10; √x e⁻ˣ I₀(x) in 1/x beyond; for float32 in float64
NEAR_ZERO: Table = (
    (
        1.0,
        0.25,
        0.015624999999999997,
        0.00043402777777778014,
        6.781684027776996e-06,
        6.781684027792822e-08,
        4.709502796883346e-10,
        2.4028075510564423e-12,
        9.38596690074835e-15,
        2.8969037712541974e-17,
        7.242246656037554e-20,
        1.496361820989635e-22,
        2.597328810395533e-25,
        3.848967393355322e-28,
        4.8452199789308525e-31,
        5.815755435868061e-34,
        3.7243683923156395e-37,
        8.546281557360018e-40,
    ),
    (
        0.9999999993410417,
        0.2500000042218319,
        0.015624996093136346,
        0.00043402904794017353,
        6.7814885534301645e-06,
        6.783336710112666e-08,
        4.701155068883732e-10,
        2.429191603999683e-12,
        8.854379198829122e-15,
        3.573521997291614e-17,
        2.059650857306737e-20,
        3.581760863492375e-22,
    ),
)
FAR_ZERO: Table = (
    (
        0.3989422804014327,
        0.04986778505009245,
        0.028050629174712398,
        0.029219373482822174,
        0.0447484065023138,
        0.08990277441482838,
        0.2765948064260885,
        -1.2450032497004473,
        31.493812386216764,
        1379.0475728673803,
        -104820.79368173979,
        3587883.9138180166,
        -78633605.08041179,
        1188964222.0229294,
        -12572598739.839407,
        91391703358.5845,
        -434714220300.74426,
        1216471322058.7559,
        -1516767604509.1106,
    ),
    (
        0.39894227987106967,
        0.049868137242615254,
        0.028012949717576556,
        0.03066618991216953,
        0.020702741421578345,
        0.25462424906355047,
    ),
)
#: The same of 2 I₁(x) / x, and of √x e⁻ˣ I₁(x)
NEAR_ONE: Table = (
    (
        1.0,
        0.125,
        0.005208333333333333,
        0.0001085069444444447,
        1.356336805555481e-06,
        1.1302806712976103e-08,
        6.727861138518755e-11,
        3.003509438070237e-13,
        1.0428852147130447e-15,
        2.8969036511271016e-18,
        6.583863619489362e-21,
        1.2469625508952652e-23,
        1.998022656533711e-26,
        2.748488844171537e-29,
        3.2356060876832655e-32,
        3.6090762668132733e-35,
        2.2637664466455903e-38,
        4.654304372173923e-41,
    ),
    (
        0.9999999998461723,
        0.12500000078250562,
        0.005208332729651597,
        0.00010850711414312241,
        1.3563135942846596e-06,
        1.1304588070973723e-08,
        6.719558408482996e-11,
        3.028041661039536e-13,
        9.961897984420853e-16,
        3.463318092530631e-18,
        2.4173794174178385e-21,
        2.870242884268412e-23,
    ),
)
FAR_ONE: Table = (
    (
        0.39894228040143265,
        -0.14960335515044768,
        -0.04675104857035299,
        -0.04090713534229748,
        -0.057531844214232436,
        -0.11005899863751041,
        -0.31470921968298887,
        0.8307807412963012,
        -13.234706780397225,
        -2172.3505256126464,
        129431.38961811787,
        -4154135.8284764146,
        88320288.18925953,
        -1311557076.4593997,
        13701634928.347,
        -98722533026.2919,
        466405720142.76276,
        -1298085321215.1094,
        1611295704733.6719,
    ),
    (
        0.3989422810207686,
        -0.14960376385015392,
        -0.04670749134788,
        -0.042576180581466,
        -0.029800273657750224,
        -0.3004564577871003,
    ),
)
LARGE = 10.0


def bessel_i0e(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$e^{-|x|} I_0(x)$."""
    return lanes.call("bessel_i0e", _i0e, x)


def bessel_i1e(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$e^{-|x|} I_1(x)$."""
    return lanes.call("bessel_i1e", _i1e, x)


def _i0e(lanes: Lanes, x: ir.Value) -> ir.Value:
    wide = lanes.doubled()
    size = wide.abs(lanes.widen(x))
    return lanes.narrow(_scaled(wide, size, wide.constant(1), *_tables(lanes, NEAR_ZERO, FAR_ZERO)))


def _i1e(lanes: Lanes, x: ir.Value) -> ir.Value:
    wide = lanes.doubled()
    size = wide.abs(lanes.widen(x))
    half = wide.mul(size, wide.constant(0.5))
    return lanes.copysign(lanes.narrow(_scaled(wide, size, half, *_tables(lanes, NEAR_ONE, FAR_ONE))), x)


def _tables(lanes: Lanes, near: Table, far: Table) -> tuple[tuple[float, ...], tuple[float, ...]]:
    which = 0 if lanes.double else 1
    return tuple(near[which]), tuple(far[which])


def _scaled(
    lanes: Lanes, size: ir.Value, factor: ir.Value, near: tuple[float, ...], far: tuple[float, ...]
) -> ir.Value:
    """The value from the polynomials, of which the first one is multiplied by a factor."""
    is_near = lanes.compare("<", size, lanes.constant(LARGE))
    series = horner(lanes, lanes.mul(size, size), near)
    small = lanes.mul(lanes.mul(exp(lanes, lanes.neg(size)), factor), series)
    inverse = lanes.div(lanes.constant(1), size)
    large = lanes.div(horner(lanes, inverse, far), lanes.sqrt(size))
    return lanes.select(is_near, small, large)
