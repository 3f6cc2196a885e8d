"""A look at a finite distance, before a search says what it found.

A small decrement and a positive-definite Hessian are statements about one point, and rounding can forge both.
Where it may have, the log-likelihood at one standard error, or a tenth of one, decides: it must fall about as the
quadratic says. Where it is higher, the search goes on from there.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..core.linear_algebra import matvec, norm
from ..core.status import RUNNING, Status
from ..core.trees import choose
from .box import Active, Box, with_others
from .quadratic_model import QuadraticModel

#: Points are looked at in pairs, both ways: the first at one standard error, the second at a tenth, eight at ever
#: less, each by the root of ten nearer, for ridges that bend and walls that are near. Two pairs in a row where the
#: quadratic holds are enough, one where it holds closely, or the first where rounding hides the second: what
#: rounding makes may fall so once, but hardly twice.
PAIRS, NEAR = 10, 2
#: A flat direction has no end: the nearer points also lie within a hundredth of so many times the errors that each
#: parameter would have if the others were known.
FARTHEST = 1e5
#: At one standard error, a tenth and less: how far the mean fall both ways may be from that of the quadratic, the
#: least fall on one side, and the most rounding, in units of that of the quadratic. Half a nat that rounding
#: hides cannot be asked for; the less is asked for, the clearer it must show.
FACTOR, LEAST_SIDE, MOST_NOISE = (2.0, 1.25, 1.25), (0.05, 0.7, 0.7), (jnp.inf, 0.2, 1e-3)
#: Falls on both sides that differ from the quadratic by less than so large a share of it need no second pair.
CLOSE = 0.1
#: The least fall, in nats, that proves anything: cancellation makes hills that no estimate of rounding foresees.
LEAST_FALL = 1e-9
#: The most rounding where the curvature has faded: there it makes small hills.
MOST_NOISE_FADED = (jnp.inf, 1e-3, 1e-3)
#: A search that runs away is looked at ahead only: ten of its last steps on, a hundred, and so forth. Where the
#: log-likelihood has begun to fall at one of the first of these points, there is a maximum before it. Far out
#: log-densities lose their digits: gains and falls are believed up to what the slope promises for one step, or for
#: so many.
AHEAD, REFUTING = 4, 2
#: From a bound whose multiplier is zero it is looked inwards alone, in so many points from one standard error on,
#: each by the root of ten nearer: none may be higher.
INWARDS, CONE_STEPS = 9, 12
#: A search that ends within so many standard errors of bounds, as errors would be if the others were known, first
#: tries the bounds themselves.
ONTO = 1.0
#: Nats by which higher ground must be higher. A likelihood that rises for ever still gains two decrements where it
#: does so exponentially, and four where like the inverse of a parameter; many more mean a maximum ahead.
HIGHER, HIGHER_AHEAD, HIGHER_INWARDS, DECREMENTS_AHEAD = 1e-10, 1e-5, 1e-10, 10.0
#: So often a search is sent on at most.
MOST_RISES = 8


class Judgement(NamedTuple):
    """What a point decides.

    Args:
        higher: it is higher ground, from where the search goes on.
        refuted: the search did not run away, for the log-likelihood falls a little ahead: it goes on where it was.
        status: the `Status` of the search.
        check: the look that goes on.
    """

    higher: Bool[Array, ""]
    refuted: Bool[Array, ""]
    status: Int[Array, ""]
    check: FiniteCheck


class FiniteCheck(eqx.Module):
    """A look at a finite distance: which points, and what was seen so far.

    Args:
        turn: number of the point that is looked at; -1 while the search itself goes on.
        claim: the `Status` to be confirmed.
        otherwise: the `Status` if it is not.
        direction: one standard error, in units of the free vector; of a search that runs away its last step.
        unit: of the nearer distances, in standard errors.
        fall: of the log-likelihood at the point before, in nats.
        n_rises: how often the search was sent on.
        inwards: whether it goes from bounds into the box; one standard error is then that of the entry on the
            bound if the others were known, and they follow it.
        onto: whether it goes onto bounds that are near.
        was_onto: whether that was tried from where the search is.
        room: the distance within which all points lie in the box.
        matched: whether the quadratic held at the pair before, or need not hold twice.
    """

    turn: Int[Array, ""]
    claim: Int[Array, ""]
    otherwise: Int[Array, ""]
    direction: Float[Array, " n_free"]
    unit: Float[Array, ""]
    fall: Float[Array, ""]
    n_rises: Int[Array, ""]
    inwards: Bool[Array, ""]
    onto: Bool[Array, ""]
    was_onto: Bool[Array, ""]
    room: Float[Array, ""]
    matched: Bool[Array, ""]

    @property
    def under_way(self) -> Bool[Array, ""]:
        """Whether the trial point is one to be looked at."""
        return self.turn >= 0

    @property
    def seemed_to_run_away(self) -> Bool[Array, ""]:
        """Whether any look so far began where the search seemed to."""
        return self.otherwise == Status.unbounded

    @property
    def distance(self) -> Float[Array, ""]:
        """Of the point, in units of the direction."""
        both_ways = self.distance_of(self.turn // 2)
        both_ways = jnp.where(self.turn % 2 == 0, both_ways, -both_ways)
        turn = self.turn.astype(self.direction.dtype)
        ahead, inwards = jnp.power(10.0, turn + 1), jnp.power(10.0, -0.5 * turn)
        distance = jnp.where(self.claim == Status.unbounded, ahead, jnp.where(self.inwards, inwards, both_ways))
        return jnp.where(self.onto, 1.0, distance)

    def distance_of(self, level: Int[Array, ""]) -> Float[Array, ""]:
        """Of a pair of points, in standard errors."""
        nearer = self.unit * jnp.power(10.0, -0.5 * (level.astype(self.direction.dtype) + 1))
        return jnp.where(level == 0, 1.0, jnp.where(level == 1, 0.1, nearer))


def none(free: Float[Array, " n_free"]) -> FiniteCheck:
    """None is under way."""
    minus, unknown = jnp.asarray(-1, jnp.int32), jnp.asarray(RUNNING, jnp.int32)
    zero = jnp.zeros((), free.dtype)
    none, no, endless = jnp.asarray(0, jnp.int32), jnp.asarray(False), jnp.asarray(jnp.inf, free.dtype)
    return FiniteCheck(minus, unknown, unknown, jnp.zeros_like(free), zero, zero, none, no, no, no, endless, no)


def begin(
    before: FiniteCheck,
    claim: Int[Array, ""],
    model: QuadraticModel,
    step: Float[Array, " n_free"],
    n_obs: Float[Array, ""],
    once: Bool[Array, ""],
) -> FiniteCheck:
    """A look from the point that a claim is made of; one that would not leave it is not under way.

    It goes along all principal directions at once, the less certain the more, and so by far the most along the
    least certain one.

    Args:
        before: the one before.
        claim: the `Status` that the search claims.
        model: the quadratic model around that point.
        step: the last Newton step.
        n_obs: number of observations.
        once: whether one pair that shows the quadratic to hold is enough.
    """
    k, dtype = step.shape[0], step.dtype
    mixed = jnp.full(k, k**-0.5, dtype)
    along = choose(model.definite, model.factor, model.raised).solve(mixed)
    error = along / jnp.sqrt(jnp.sum(along * mixed))
    size = norm(error / jnp.sqrt(model.scale_ratio))
    unit = jnp.minimum(1.0, FARTHEST / jnp.where(size > 0, size, 1.0))
    error = error / jnp.sqrt(n_obs) / model.scale
    direction = jnp.where(claim == Status.unbounded, step, error)
    leaves = jnp.any(direction != 0) & jnp.all(jnp.isfinite(direction))
    first = jnp.where(claim == Status.not_identified, 2 * NEAR, 0)
    turn = jnp.where(leaves, first, -1).astype(jnp.int32)
    # Whatever ends a search that seemed to run away once is rounding.
    runs_away = model.fading | (claim == Status.unbounded) | before.seemed_to_run_away
    otherwise = jnp.where(runs_away, Status.unbounded, Status.stalled).astype(jnp.int32)
    return dataclasses.replace(
        before,
        turn=turn,
        claim=claim.astype(jnp.int32),
        otherwise=otherwise,
        direction=direction,
        unit=unit,
        matched=once,
    )


def in_box(
    check: FiniteCheck,
    box: Box,
    active: Active,
    model: QuadraticModel,
    curvature: Float[Array, "k k"],
    free: Float[Array, " k"],
    n_obs: Float[Array, ""],
) -> FiniteCheck:
    """The look with the active bounds held; or inwards from those whose multiplier is zero, or onto those near.

    Args:
        check: the look that has begun.
        box: the box.
        active: the active bounds.
        model: the quadratic model of the entries that are not held.
        curvature: of the objective, those that are held included.
        free: the point.
        n_obs: number of observations.
    """
    inwards = jnp.any(active.weak) & (check.claim == Status.converged)
    parts = _inwards(box, active, model, curvature, free)
    from_bound, follow = (part / jnp.sqrt(n_obs) / model.scale for part in parts)
    # One standard error in all: those that are held take no share of it.
    both_ways = jnp.where(active.held, 0.0, check.direction)
    scaled = both_ways * model.scale
    squared = n_obs * jnp.sum(scaled * matvec(model.matrix, scaled))
    both_ways = both_ways / jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
    direction = jnp.where(inwards, jnp.where(active.held, from_bound, follow), both_ways)
    to_bound = jnp.where(free - box.low < box.high - free, box.low, box.high) - free
    near = jnp.abs(to_bound) * model.scale / jnp.sqrt(model.scale_ratio) * jnp.sqrt(n_obs) < ONTO
    near &= ~active.held
    onto = jnp.any(near) & ~check.was_onto & (check.claim != RUNNING)
    inwards &= ~onto
    there, _ = with_others(model, to_bound * model.scale, near)
    direction = jnp.where(onto, there / model.scale, direction)
    leaves = jnp.any(direction != 0)
    return dataclasses.replace(
        check,
        turn=jnp.where(inwards | onto, 0, jnp.where(leaves, check.turn, -1)),
        direction=direction,
        inwards=inwards,
        onto=onto,
        was_onto=check.was_onto | onto,
        room=jnp.where(inwards, jnp.inf, box.room(free, direction)),
    )


def _inwards(
    box: Box, active: Active, model: QuadraticModel, curvature: Float[Array, "k k"], free: Float[Array, " k"]
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    r"""The direction from the weak bounds in which the objective rises least, and how the free entries follow it.

    With $S$ the curvature of the weak entries while the free ones follow, steps against the gradient of $d^T S d$,
    projected onto what the box allows, approach its least value among directions. Entries that would each gain by
    themselves all take part, and none that would hide them.
    """
    sign = jnp.where(active.weak, box.inwards(free), 0.0)
    matrix = curvature / model.scale[:, None] / model.scale[None, :] * sign[None, :]
    across = jnp.where(active.held[:, None], 0.0, matrix)
    moves = jnp.where(model.definite, -jax.vmap(model.factor.solve, in_axes=1, out_axes=1)(across), 0.0)
    own = sign[:, None] * matrix + across.T @ moves
    size = jnp.sqrt(jnp.sum(own**2))
    weak = jnp.where(active.weak, 1.0, 0.0).astype(free.dtype)
    stiffness = jnp.where(active.weak, jnp.diagonal(own), jnp.inf)
    first = weak * jnp.where(stiffness == jnp.min(stiffness), 1.0, 0.01)

    def descend(_: int, direction: Array) -> Array:
        moved = jnp.maximum(size * direction - matvec(own, direction), 0.0) * weak
        most = jnp.max(moved)
        return jnp.where(most > 0, moved / jnp.where(most > 0, most, 1.0), direction)

    direction = jax.lax.fori_loop(0, CONE_STEPS, descend, first)
    return sign * direction, matvec(moves, direction)


def judge(
    check: FiniteCheck, fall: Float[Array, ""], decrement: Float[Array, ""], noise: Float[Array, ""]
) -> Judgement:
    """What a point decides that was looked at.

    Args:
        check: the look.
        fall: of the log-likelihood from the best point to this one, in nats.
        decrement: at the best point, in nats: half the product of slope and Newton step.
        noise: of that fall, by rounding.
    """
    ahead, often = check.claim == Status.unbounded, check.n_rises >= MOST_RISES
    least = jnp.where(ahead, jnp.maximum(HIGHER_AHEAD, DECREMENTS_AHEAD * decrement), HIGHER)
    least = jnp.maximum(jnp.where(check.inwards, HIGHER_INWARDS, least), 2 * noise)
    most = jnp.where(ahead, 2 * decrement * check.distance, jnp.inf)
    # A bound is preferred to what is no higher.
    higher = jnp.where(
        check.onto, fall <= jnp.maximum(HIGHER_INWARDS, 2 * noise), (-fall > least) & (-fall <= most)
    )
    # Where there is no end of higher ground inwards, nothing is proven.
    endless = check.inwards & higher & often
    higher &= ~often
    drop = fall - jnp.where(check.turn > 0, check.fall, 0.0)
    ahead &= ~check.onto
    refuted = ahead & (check.turn < REFUTING) & (drop > 2 * noise) & (drop <= 2 * decrement) & ~often
    matches = _falls_as_quadratic(check, fall, noise)
    proven = matches & (check.matched | _alone(check, fall, noise))
    proven &= (check.claim == Status.converged) & ~check.onto

    last = check.turn == jnp.where(ahead, AHEAD, jnp.where(check.inwards, INWARDS, 2 * PAIRS)) - 1
    unproven = (check.claim == Status.converged) & ~proven & ~check.inwards
    claimed = jnp.where(unproven | endless, check.otherwise, check.claim)
    last |= endless
    status = jnp.where((proven | last) & ~(higher | refuted | check.onto), claimed, RUNNING)
    over = higher | refuted | proven | last | check.onto
    # Where it falls on one side alone, it rises for ever on the other, by too little to be seen.
    one_sided = (check.turn == 1) & (jnp.minimum(check.fall, fall) < LEAST_SIDE[0] * 0.5)
    one_sided &= (jnp.maximum(check.fall, fall) > 0.5) & ~check.inwards & (check.room >= 1)
    following = dataclasses.replace(
        check,
        otherwise=jnp.where(one_sided, Status.unbounded, check.otherwise),
        turn=jnp.where(over, -1, check.turn + 1),
        fall=fall,
        matched=jnp.where(check.turn % 2 == 1, matches, check.matched),
        n_rises=check.n_rises + (higher | refuted).astype(jnp.int32),
        was_onto=check.was_onto & ~higher,
    )
    return Judgement(higher, refuted, status, following)


def _falls_as_quadratic(check: FiniteCheck, fall: Float[Array, ""], noise: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether this point and the one before, on the other side, prove the standard error."""
    level = check.turn // 2
    factor, least_side = _of_level(level, FACTOR), _of_level(level, LEAST_SIDE)
    expected = 0.5 * check.distance**2
    mean, side = 0.5 * (check.fall + fall), jnp.minimum(check.fall, fall)
    falls = (mean + noise >= expected / factor) & (mean - noise <= expected * factor)
    falls &= (side + noise >= least_side * expected) & (noise <= _most_noise(check, level) * expected)
    falls &= expected > LEAST_FALL
    return falls & (check.turn % 2 == 1) & ~check.inwards & (jnp.abs(check.distance) <= check.room)


def _alone(check: FiniteCheck, fall: Float[Array, ""], noise: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether one pair is enough: both falls are very close to the quadratic, or rounding hides the next to the
    first.
    """
    expected = 0.5 * check.distance**2
    farthest = jnp.maximum(jnp.abs(check.fall - expected), jnp.abs(fall - expected))
    level = check.turn // 2 + 1
    hides = noise > _most_noise(check, level) * 0.5 * check.distance_of(level) ** 2
    return (farthest < CLOSE * expected) | ((level == 1) & hides)


def _most_noise(check: FiniteCheck, level: Int[Array, ""]) -> Float[Array, ""]:
    """The most rounding of a pair, in units of its fall."""
    return jnp.where(check.seemed_to_run_away, _of_level(level, MOST_NOISE_FADED), _of_level(level, MOST_NOISE))


def _of_level(level: Int[Array, ""], values: tuple[float, float, float]) -> Float[Array, ""]:
    first, second, others = values
    return jnp.where(level == 0, first, jnp.where(level == 1, second, others))
