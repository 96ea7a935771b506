"""Human rankings of methods as in Table 2: mean ranks, their intervals, and what differs.

Raters and captions are both samples, of the people and the captions one would like to speak of, so
a bootstrap draws both anew. Where each ranking is a world of its own (nobody agrees with anybody,
on no caption) its variance is up to three times the true one (Owen 2007, "The pigeonhole
bootstrap", Annals of Applied Statistics 1): it errs towards finding nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import chi2, rankdata

from sdn_ray.errors import UserError

CONFIDENCE = 0.95
REPLICATES = 10_000  # of a bootstrap
_NUMBERS_AT_ONCE = 1 << 22  # of a block of replicates, to bound memory: 32 MiB


@dataclass(frozen=True, eq=False)
class Rankings:
    """How raters ranked the images of k methods, n times, by one question.

    Raises:
        UserError: there is no ranking or no second method, a method is named twice, the arrays do
            not belong together, a ranking is not strict and complete, or a rater ranked a caption
            twice (repeats are rankings of their own, see `repeat_agreement`).
    """

    methods: tuple[str, ...]  # k
    caption: np.ndarray  # (n,) int: whose images were ranked
    rater: np.ndarray  # (n,) int: by whom
    ranks: np.ndarray  # (n, k) float: 1 is best

    def __post_init__(self) -> None:
        n, k = len(self.ranks), len(self.methods)
        if k < 2 or len(set(self.methods)) < k:
            found = ", ".join(self.methods) or "none"
            raise UserError(f"rankings: methods {found}; expected at least two, each named once")
        if n == 0:
            raise UserError("rankings: found none, expected at least one")
        shapes = self.caption.shape, self.rater.shape, self.ranks.shape
        if shapes != ((n,), (n,), (n, k)):
            raise UserError(
                f"rankings: captions, raters and ranks have the shapes {shapes[0]}, {shapes[1]} "
                f"and {shapes[2]}; expected ({n},), ({n},) and ({n}, {k}), a column a method"
            )
        wrong = np.flatnonzero((np.sort(self.ranks, axis=1) != np.arange(1, k + 1)).any(axis=1))
        if wrong.size:
            row = wrong[0]
            raise UserError(
                f"rankings: rater {self.rater[row]} gave the images of caption {self.caption[row]} "
                f"the ranks {self.ranks[row].tolist()}; expected each of 1 to {k} once"
            )
        pairs, counts = np.unique([self.rater, self.caption], axis=1, return_counts=True)
        if counts.max() > 1:
            rater, caption = pairs[:, counts.argmax()]
            raise UserError(
                f"rankings: rater {rater} ranked caption {caption} {counts.max()} times, "
                "expected once"
            )

    def where(self, chosen: np.ndarray) -> "Rankings":
        """The rankings that a mask, (n,) bool, chooses: of some raters, of common captions.

        Raises:
            UserError: it chooses none.
        """
        return replace(
            self,
            caption=self.caption[chosen],
            rater=self.rater[chosen],
            ranks=self.ranks[chosen],
        )


@dataclass(frozen=True)
class Interval:
    """Where 95 % of a bootstrap's replicates lie, as many below as above."""

    low: float
    high: float


@dataclass(frozen=True)
class MeanRank:
    """One method's cell of Table 2."""

    method: str
    mean: float  # R̄, of all rankings; smaller is better
    interval: Interval  # of the mean
    deviation: float  # of single ranks: what the paper prints after ±; see `rank_deviations`


@dataclass(frozen=True)
class Difference:
    """Two methods beside each other."""

    first: str
    second: str
    mean: float  # R̄ of the first less R̄ of the second; below 0 the first is better
    interval: Interval  # of the mean, not corrected for the number of pairs
    before: float  # share of rankings in which the first stands before the second
    p: float  # two-sided, of no difference
    p_holm: float  # the same, corrected for the number of pairs


@dataclass(frozen=True)
class Comparison:
    """All methods, and all pairs of them, from one bootstrap."""

    methods: tuple[MeanRank, ...]
    pairs: tuple[Difference, ...]


@dataclass(frozen=True)
class Friedman:
    """Friedman's test of no difference between any two methods."""

    statistic: float  # χ²
    degrees: int  # of freedom
    p: float
    captions: int  # blocks


def mean_ranks(rankings: Rankings) -> np.ndarray:
    """R̄ of each method, (k,): the mean over all rankings."""
    return rankings.ranks.mean(axis=0)


def rank_deviations(rankings: Rankings) -> np.ndarray:
    """The population standard deviation of each method's single ranks, (k,).

    Of images ranked blindly it is √((k² − 1) / 12): 1.118 for four methods, 0.816 for three.
    """
    return rankings.ranks.std(axis=0)


def shares_before(rankings: Rankings) -> np.ndarray:
    """The share of rankings in which method j stands before l, (k, k) by [j, l]; 0 where j = l."""
    ranks = rankings.ranks
    return (ranks[:, :, None] < ranks[:, None, :]).mean(axis=0)


def compare(rankings: Rankings, replicates: int = REPLICATES, seed: int = 0) -> Comparison:
    """Mean ranks and their differences, with percentile intervals from one bootstrap.

    The p value of a difference is twice the smaller of the shares of replicates at or below 0 and
    at or above it, at most 1; the study itself counts as one more replicate, so that none is 0.
    Holm's correction is over all pairs.

    Args:
        rankings: of at least two captions and raters, or the replicates know no scatter.
        replicates: of the bootstrap. No p value is below 2 / (replicates + 1).
        seed: of its draws.
    """
    drawn = bootstrap_mean_ranks(rankings, replicates, seed)
    means, deviations = mean_ranks(rankings), rank_deviations(rankings)
    before = shares_before(rankings)
    names = rankings.methods
    methods = tuple(
        MeanRank(name, float(means[j]), percentile_interval(drawn[:, j]), float(deviations[j]))
        for j, name in enumerate(names)
    )
    places = list(combinations(range(len(names)), 2))
    differences = [drawn[:, one] - drawn[:, other] for one, other in places]
    p = np.array([_two_sided(difference) for difference in differences])
    pairs = tuple(
        Difference(
            first=names[one],
            second=names[other],
            mean=float(means[one] - means[other]),
            interval=percentile_interval(difference),
            before=float(before[one, other]),
            p=float(single),
            p_holm=float(corrected),
        )
        for (one, other), difference, single, corrected in zip(
            places, differences, p, holm(p), strict=True
        )
    )
    return Comparison(methods, pairs)


def bootstrap_mean_ranks(
    rankings: Rankings, replicates: int = REPLICATES, seed: int = 0
) -> np.ndarray:
    """R̄ of each method in replicates of the study, (replicates, k).

    Captions are drawn with replacement and, independently, raters; a ranking counts as often as its
    caption times its rater were drawn. A replicate in which none counts is left out: that happens
    in studies of a few rankings alone. Which replicates there are depends on the seed and the
    rankings, not on the memory at hand.
    """
    captions, caption = np.unique(rankings.caption, return_inverse=True)
    raters, rater = np.unique(rankings.rater, return_inverse=True)
    n, k = rankings.ranks.shape
    # A row a caption, k + 1 columns a rater: the ranks that were given, and that they were.
    given = np.column_stack([rankings.ranks, np.ones(n)])
    columns = rater[:, None] * (k + 1) + np.arange(k + 1)
    table = csr_array(
        (given.ravel(), (np.repeat(caption, k + 1), columns.ravel())),
        shape=(len(captions), len(raters) * (k + 1)),
    )
    # Two streams of draws, so that the size of a block changes neither.
    of_captions, of_raters = np.random.default_rng(seed).spawn(2)
    means = []
    for size in blocks(replicates, sum(table.shape)):
        by_rater = multiplicities(of_captions, size, len(captions)) @ table
        weights = multiplicities(of_raters, size, len(raters))
        sums = np.einsum("ba,baj->bj", weights, by_rater.reshape(size, len(raters), k + 1))
        sums = sums[sums[:, -1] > 0]
        means.append(sums[:, :-1] / sums[:, -1:])
    return np.concatenate(means)


def blocks(replicates: int, numbers: int) -> Iterator[int]:
    """The sizes of blocks of replicates, each of which needs so many numbers, to bound memory."""
    most = max(1, _NUMBERS_AT_ONCE // numbers)
    for start in range(0, replicates, most):
        yield min(most, replicates - start)


def multiplicities(draws: np.random.Generator, replicates: int, n: int) -> np.ndarray:
    """How often each of n is drawn when n are drawn with replacement, (replicates, n) float."""
    # Faster by five than multinomial draws, which they are.
    drawn = draws.integers(n, size=(replicates, n)) + n * np.arange(replicates)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=replicates * n)
    return counts.reshape(replicates, n).astype(np.float64)


def percentile_interval(replicates: np.ndarray) -> Interval:
    """The middle 95 % of a bootstrap's replicates, (replicates,)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Interval(float(low), float(high))


def holm(p: np.ndarray) -> np.ndarray:
    """p values corrected for their number, (n,): below α with probability α at most if none holds.

    Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    corrected = np.empty_like(steps)
    corrected[order] = steps
    return corrected


def friedman(rankings: Rankings) -> Friedman:
    """Do methods differ at all? χ² of N captions, each a block.

    χ² = 12 / (N k (k + 1)) Σ_j (R_j − N (k + 1) / 2)², R_j the sums over captions of what remains
    when the mean ranks over the raters of a caption are ranked again; methods that tie there share
    their ranks, and χ² is divided by 1 − Σ (g³ − g) / (N (k³ − k)) over the groups of g that tie.
    Own code, since SciPy's refuses two methods, and divides 0 by 0 where all tie (here χ² is 0).
    """
    captions, block = np.unique(rankings.caption, return_inverse=True)
    n, k = len(captions), len(rankings.methods)
    # Sums rank as means do, and are exact: what ties, ties.
    sums = np.zeros((n, k))
    np.add.at(sums, block, rankings.ranks)
    again = rankdata(sums, axis=1)
    apart = again.sum(axis=0) - n * (k + 1) / 2
    untied = n * (k**3 - k) - tie_terms(again).sum()
    statistic = float(12 * (k - 1) * apart @ apart / untied) if untied else 0.0
    return Friedman(statistic, k - 1, float(chi2.sf(statistic, k - 1)), n)


def tie_terms(ranks: np.ndarray) -> np.ndarray:
    """Σ (g³ − g) over the groups of g equal ranks of each row, (…, k) to (…,); 0 without ties."""
    sizes = (ranks[..., :, None] == ranks[..., None, :]).sum(axis=-1)
    return (sizes**2 - 1).sum(axis=-1)


def _two_sided(replicates: np.ndarray) -> float:
    """The p value of 0 among replicates of a difference, (replicates,)."""
    beyond = min((replicates <= 0).sum(), (replicates >= 0).sum())
    return float(min(1, 2 * (1 + beyond) / (1 + len(replicates))))
