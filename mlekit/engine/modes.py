"""The maxima that many starts found, and how many starts found which."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..core.format.numbers import count, counted, likelihood, number, share, uncertain
from ..core.format.renderers import WIDTH, HtmlRenderer, Renderer, TextRenderer
from ..core.status import Status, StatusArray
from ..core.trees import where_rows

#: Estimates that differ by less than this many standard errors are those of one maximum.
NEAR = 0.1


class Modes(eqx.Module):
    """The maxima that many starts found: `Fit.modes` of a fit with `starts=`.

    Best first, those as high as one another in the order of the first start that found them. Arrays have as many
    entries as there were starts, and behind the last mode they are empty: NaN, and a count of zero. Those of a
    batch have a leading axis of data sets.

    Two starts found the same mode if both converged, their log-likelihoods agree to the tolerance and to rounding,
    and their estimates differ by less than a tenth of their standard errors. Modes that differ only in the order
    of interchangeable parts, such as the components of a mixture, count as several.

    Args:
        log_likelihood: of each mode, in nats, shape `(starts,)`; the first is the one that was kept.
        count: how many starts found it.
        vector: its scalar parameters in natural units, shape `(starts, k)`.
        errors: their standard errors.
        found: of each start, in their order, the number of the mode that it found; -1 where it found none.
        reached: of each start the log-likelihood where it ended.
        status: of each start why it ended.
        names: the names of the parameters.
        params: the estimates of the modes, a PyTree like `init` whose leaves have a leading axis of modes.

    Example:
        Three observations with Cauchy noise, two of them close to each other:

        >>> import jax, jax.numpy as jnp, mlekit as mle
        >>> density = lambda place, x: -jnp.log1p((x - place) ** 2)
        >>> fit = mle.fit(density, 8.0, jnp.array([0.0, 1.0, 9.0]), starts=20, key=jax.random.key(1))
        >>> print(fit.modes)
        Modes: 2
        starts: 20, of which ... found this maximum, ... another one 3.8 nats lower
        <BLANKLINE>
              starts    log-likelihood    below    params
        --  --------  ----------------  -------  --------
         0  ...                -4.7260            0.62...
         1  ...                -8.5236     3.80   8.74...
        >>> print(fit.modes.params[:2].round(2))
        [0.62 8.74]
    """

    log_likelihood: Float[Array, "... starts"]
    count: Int[Array, "... starts"]
    vector: Float[Array, "... starts k"]
    errors: Float[Array, "... starts k"]
    found: Int[Array, "... starts"]
    reached: Float[Array, "... starts"]
    status: StatusArray
    names: tuple[str, ...] = eqx.field(static=True)
    params: PyTree = None

    @property
    def starts(self) -> int:
        """Number of starts of a data set."""
        return self.count.shape[-1]

    @property
    def n_modes(self) -> Int[Array, "..."]:
        """Number of modes that were found."""
        return jnp.sum(self.count > 0, axis=-1)

    @property
    def failed(self) -> Int[Array, "..."]:
        """Number of starts that found no proven maximum."""
        return jnp.sum(self.found < 0, axis=-1)

    def __repr__(self) -> str:
        if isinstance(self.count, jax.core.Tracer):
            return f"Modes(<traced>, starts={self.starts})"
        return modes_text(self)

    def _repr_html_(self) -> str:
        return modes_html(self)


def select_modes(
    status: Int[Array, " starts"],
    reached: Float[Array, " starts"],
    vector: Float[Array, "starts k"],
    errors: Float[Array, "starts k"],
    tolerance: Float[Array, ""],
    names: tuple[str, ...],
) -> tuple[Int[Array, ""], Modes]:
    """The best of the starts of one data set, and the modes among them.

    A proven maximum comes before any other end of a search, however high: a likelihood without bound, as that of
    a mixture has none where a component shrinks onto one observation, would win every time and mean nothing. Among
    starts that found the same mode the first is kept, so that rounding decides nothing.

    Args:
        status: how each start ended.
        reached: its log-likelihood there.
        vector: its estimates.
        errors: their standard errors.
        tolerance: on the decrement, in nats.
        names: the names of the parameters.
    """
    starts = status.shape[0]
    proven = status == Status.converged
    height = jnp.where(proven, reached, -jnp.inf)

    # Tiers of maxima as high as one another, and in each tier the order of the starts.
    downward = jnp.argsort(-height)
    level = height[downward]
    eps = jnp.finfo(height.dtype).eps
    noise = 10 * tolerance + 100 * eps * jnp.maximum(1.0, jnp.abs(level[0]))
    place = jnp.arange(starts)
    drop = (place > 0) & (jnp.roll(level, 1) - level > noise)
    order = jnp.argsort(jnp.cumsum(drop)[jnp.argsort(downward)], stable=True)
    tier = jnp.cumsum(drop)  # the same in either order

    real, estimates = proven[order], vector[order]
    reach = NEAR * errors[order] + 100 * eps * jnp.abs(estimates)

    def join(i: Array, leader: Array) -> Array:
        """Give the start at place `i` to the first mode it belongs to."""
        near = jnp.all(jnp.abs(estimates - estimates[i][None, :]) <= reach, axis=1) & real & (tier == tier[i])
        near &= (leader == place) & (place < i)
        return leader.at[i].set(jnp.min(jnp.where(near, place, i)))

    leader = jax.lax.fori_loop(0, starts, join, place)
    leads = (leader == place) & real
    number = jnp.where(real, (jnp.cumsum(leads) - 1)[leader], -1)
    there = place < jnp.sum(leads)
    # The start that stands for each mode, and then whatever is left.
    kept = order[jnp.argsort(~leads, stable=True)]

    def of_modes(values: Array) -> Array:
        return where_rows(there, values[kept], jnp.nan)

    # Without any proof the highest of all is kept, and its status tells what it is worth.
    highest = jnp.argmax(jnp.where(jnp.isfinite(reached), reached, -jnp.inf))
    return jnp.where(real[0], order[0], highest), Modes(
        log_likelihood=of_modes(reached),
        count=jnp.sum(number[None, :] == place[:, None], axis=1),
        vector=of_modes(vector),
        errors=of_modes(errors),
        found=number[jnp.argsort(order)],
        reached=reached,
        status=StatusArray(status),
        names=names,
    )


#: Modes shown; and what each takes of a line beside its estimates, which take at least so much.
MODES, ASIDE, CELL = 12, 44, 9
#: Log-likelihoods closer than this many nats, or this share, count as the same in a sentence.
LEVEL, LEVEL_SHARE = 1e-3, 1e-6


def modes_text(modes: Modes) -> str:
    """The modes for a terminal: a table of one data set's, a sentence on those of a batch."""
    return _draw_modes(TextRenderer(), modes)


def modes_html(modes: Modes) -> str:
    """The same for a notebook."""
    return _draw_modes(HtmlRenderer(), modes)


def _draw_modes(out: Renderer, modes: Modes) -> str:
    if modes.count.ndim > 1:
        out.title(f"Modes: {counted(modes.count[..., 0].size, 'data set')}")
    else:
        out.title(f"Modes: {int(modes.n_modes)}")
    out.paragraph(starts_line(modes))
    if modes.count.ndim == 1 and modes.n_modes:
        _table_of_modes(out, modes)
    return out.render()


def _table_of_modes(out: Renderer, modes: Modes) -> None:
    whole, level = int(modes.n_modes), np.asarray(modes.log_likelihood)
    vector, errors = np.asarray(modes.vector), np.asarray(modes.errors)
    below = level[0] - level
    below = np.where(below > 100 * np.finfo(level.dtype).eps * abs(level[0]), below, 0.0)
    moving = np.flatnonzero(np.any(errors[:whole] > 0, axis=0))
    room = np.cumsum([max(len(modes.names[j]), CELL) + 2 for j in moving]) <= WIDTH - ASIDE
    shown = moving[: max(1, int(room.sum()))]
    rows = [
        [
            str(i),
            count(modes.count[i]),
            likelihood(level[i]),
            number(below[i], 3) if i else "",
            *(uncertain(vector[i, j], errors[i, j]) for j in shown),
        ]
        for i in range(min(whole, MODES))
    ]
    headers = ["", "starts", "log-likelihood", "below", *(modes.names[j] for j in shown)]
    out.table(rows, headers, ["right", "right", "right", *["decimal"] * (1 + len(shown))])
    hidden = [
        f"{left:,} more {thing}{'s' * (left > 1)}"
        for left, thing in ((whole - len(rows), "mode"), (len(moving) - len(shown), "parameter"))
        if left
    ]
    if hidden:
        out.paragraph(f"... and {', '.join(hidden)}")


def starts_line(modes: Modes) -> str:
    """A sentence: how many starts found which mode."""
    if modes.count.ndim > 1:
        return _starts_of_batch(modes)
    starts, counts = modes.starts, [int(one) for one in np.asarray(modes.count) if one]
    failures = {name: n for name, n in modes.status.counts().items() if name != "converged"}
    reasons = ", ".join(f"{n} {name}" for name, n in failures.items())
    if not counts:
        return f"starts: {count(starts)}, of which none found a proven maximum ({reasons})"
    if counts[0] == starts:
        return f"starts: {count(starts)}, {'all of which' if starts > 1 else 'which'} found this maximum"
    parts = [f"{count(counts[0])} found this maximum"]
    level = np.asarray(modes.log_likelihood)
    margin = LEVEL + LEVEL_SHARE * abs(level[0])
    if len(counts) > 1:
        low = level[0] - level[1]
        height = f"{number(low, 2)} nats lower" if low > margin else "just as high"
        which = (
            f"found {len(counts) - 1} others, the next {height}" if len(counts) > 2 else f"another one {height}"
        )
        parts.append(f"{count(sum(counts[1:]))} {which}")
    if failures:
        ahead = int(np.sum((np.asarray(modes.found) < 0) & (np.asarray(modes.reached) > level[0] + margin)))
        text = f"{count(sum(failures.values()))} failed ({reasons})"
        parts.append(text + f" and {count(ahead)} of these came higher" * bool(ahead))
    return f"starts: {count(starts)}, of which {', '.join(parts)}"


def _starts_of_batch(modes: Modes) -> str:
    counts = np.asarray(modes.count).reshape(-1, modes.starts)
    whole, best = len(counts), counts[:, 0]
    text = f"starts: {count(modes.starts)} a data set"
    if not np.any(best):
        return f"{text}, of which none found a proven maximum" if whole else text
    several, once = (int(np.sum(mask)) for mask in (np.sum(counts > 0, axis=1) > 1, best == 1))
    text += f"; the best maximum was found by {count(np.median(best[best > 0]))} of them at the median"
    if modes.starts > 1:
        text += f", by a single one in {counted(once, 'data set')} ({share(once, whole)})"
    return f"{text}; {counted(several, 'data set')} ({share(several, whole)}) have more than one maximum"
