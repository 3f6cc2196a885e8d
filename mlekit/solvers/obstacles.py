"""Walls: the parameters that stop a search are held, and it goes on with the others.

Where the support of a density ends the log-likelihood drops to minus infinity, or it jumps. No quadratic tells
of that, so steps are rejected, and a ball that shrinks stops *all* parameters. The last rejected step is then
tried one parameter at a time. Those whose own part fails are held until the search for the others is over, and
then let go. From then on the ball must shrink by far before any is held again, so in the end the search is
stuck as close to the obstacle as numbers allow, with all parameters free.
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

#: A ball of so many standard errors is small enough for an obstacle, and one so many times smaller than the last
#: that was looked at. After an obstacle the ball is so many times wider than there.
SMALL, SMALLER, WIDER = 0.03, 1e-4, 4.0
#: A parameter is blocked if its part of a step misses the predicted change by more than this share of it.
MISSED = 0.5
#: And by so many times its rounding.
BEYOND = 100.0
#: Parameters at most that are tried one by one.
MOST = 32


class Obstacles(eqx.Module):
    """What stops a search.

    Args:
        turn: number of the entry whose part of a rejected step is tried alone; -1 while the search itself goes on.
        step: that rejected step.
        radius: of the trust region that it filled.
        blocked: entries whose part was found to fail, the later ones not yet tried.
        held: entries that stay where they are.
        any_met: whether any entry ever had to be held, or a kink was crossed.
        wall: whether the log-likelihood was not finite beyond one.
    """

    turn: Int[Array, ""]
    step: Float[Array, " n_free"]
    radius: Float[Array, ""]
    blocked: Bool[Array, " n_free"]
    held: Bool[Array, " n_free"]
    any_met: Bool[Array, ""]
    wall: Bool[Array, ""]

    @property
    def under_way(self) -> Bool[Array, ""]:
        """Whether the trial point moves one entry alone."""
        return self.turn >= 0

    @property
    def part(self) -> Float[Array, " n_free"]:
        """The part of the step that is tried."""
        return jnp.where(self.own, self.step, 0.0)

    @property
    def wider_radius(self) -> Float[Array, ""]:
        """Of the trust region when all entries are free again."""
        return WIDER * self.radius

    @property
    def own(self) -> Bool[Array, " n_free"]:
        """The entry that it moves."""
        return jnp.arange(self.step.shape[0], dtype=jnp.int32) == self.turn

    @property
    def holding(self) -> Bool[Array, ""]:
        """Whether any entry is held."""
        return jnp.any(self.held)


def none(free: Float[Array, " n_free"]) -> Obstacles:
    """None was met."""
    minus, endless = jnp.asarray(-1, jnp.int32), jnp.asarray(jnp.inf, free.dtype)
    no, nowhere = jnp.asarray(False), jnp.zeros(free.shape[0], bool)
    return Obstacles(minus, jnp.zeros_like(free), endless, nowhere, nowhere, no, no)


def suspected(obstacles: Obstacles, radius: Float[Array, ""], n_obs: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether a ball is so small that an obstacle may be the reason."""
    return radius < jnp.minimum(SMALL / jnp.sqrt(n_obs), SMALLER * obstacles.radius)


def can_be_tried(step: Float[Array, " n_free"]) -> bool:
    """Whether there are few enough entries, and others that could go on."""
    return 1 < step.shape[0] <= MOST


def begin(obstacles: Obstacles, step: Float[Array, " n_free"], radius: Float[Array, ""]) -> Obstacles:
    """Try the parts of a rejected step, one entry at a time."""
    return dataclasses.replace(
        obstacles,
        turn=jnp.zeros_like(obstacles.turn),
        step=jnp.where(obstacles.held, 0.0, step),
        radius=radius,
        blocked=jnp.zeros_like(obstacles.blocked),
    )


def judge(
    obstacles: Obstacles,
    rise: Float[Array, ""],
    gradient: Float[Array, " n_free"],
    curvature: Float[Array, "n_free n_free"],
    noise: Float[Array, ""],
) -> Obstacles:
    """After the part of one entry.

    Args:
        obstacles: what is known.
        rise: of the objective; infinite where that is not finite.
        gradient: of the objective where the search is.
        curvature: the same.
        noise: of the rise, by rounding.
    """
    move = obstacles.part
    expected = jnp.sum(move * (gradient + 0.5 * jnp.diagonal(curvature) * move))
    fails = rise - expected > MISSED * jnp.abs(expected) + BEYOND * noise
    blocked = obstacles.blocked | (obstacles.own & fails)
    last = obstacles.turn == obstacles.step.shape[0] - 1
    held = obstacles.held | blocked
    # Where that would be all of them, those held before are let go.
    held = jnp.where(jnp.all(held), blocked, held)
    # Where each part fails, none is to blame.
    hold = last & ~jnp.all(held)
    return dataclasses.replace(
        obstacles,
        turn=jnp.where(last, -1, obstacles.turn + 1),
        blocked=blocked,
        held=jnp.where(hold, held, obstacles.held),
        any_met=obstacles.any_met | (hold & jnp.any(blocked)),
        wall=obstacles.wall | (fails & jnp.isinf(rise)),
    )


def at_kink(obstacles: Obstacles, radius: Float[Array, ""]) -> Obstacles:
    """A step of this length has crossed a kink."""
    return dataclasses.replace(obstacles, any_met=jnp.asarray(True), radius=radius)


def let_go(obstacles: Obstacles) -> Obstacles:
    """All entries are free again."""
    return dataclasses.replace(obstacles, held=jnp.zeros_like(obstacles.held))
