"""What a trust-region search knows between two evaluations."""

from __future__ import annotations

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int

from . import finite_check, kinks, obstacles
from .convergence import Progress


class TrustRegionState(eqx.Module):
    """The best point so far, all that is known there, and the trial point to evaluate next."""

    free: Float[Array, " n_free"]
    loss: Float[Array, ""]
    gradient: Float[Array, " n_free"]
    curvature: Float[Array, "n_free n_free"]
    scale: Float[Array, " n_free"]  # units of the parameters: the largest curvature met so far
    initial_scale: Float[Array, " n_free"]  # the same at the start
    progress: Progress
    trial: Float[Array, " n_free"]
    length: Float[Array, ""]  # of the step to the trial point, in scaled units
    radius: Float[Array, ""]
    predicted: Float[Array, ""]
    is_newton_step: Bool[Array, ""]  # whether the step to the trial point is a full Newton step
    trial_nonfinite: Bool[Array, ""]  # whether the last rejected trial point had no finite log-likelihood
    n_without_gain: Int[Array, ""]  # steps in a row that brought nothing beyond rounding
    steps: Int[Array, ""]
    status: Int[Array, ""]
    # The last fields, for states that earlier versions saved have none of them.
    check: finite_check.FiniteCheck
    obstacles: obstacles.Obstacles
    kinks: kinks.Kinks
    told: Float[Array, " n_free"]  # the curvature of the parameters where a step last showed the quadratic to hold

    @property
    def first(self) -> Bool[Array, ""]:
        """Whether the trial point is the start."""
        return self.steps == 0

    @property
    def searching(self) -> Bool[Array, ""]:
        """Whether the trial point is a step, and neither one to be looked at nor a part of a step."""
        return ~self.check.under_way & ~self.obstacles.under_way

    @property
    def ran_away(self) -> Bool[Array, ""]:
        """Whether the search once seemed to run away; what ends it after that is rounding."""
        return self.progress.diverging | self.check.seemed_to_run_away

    @property
    def decrement(self) -> Float[Array, ""]:
        """The log-likelihood still to be gained, in nats."""
        return self.progress.decrement
