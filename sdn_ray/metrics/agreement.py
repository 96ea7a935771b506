"""How far raters can be relied on: agreement with one another and with themselves, attention."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, kendalltau

from sdn_ray.errors import UserError
from sdn_ray.metrics.rankings import (
    CONFIDENCE,
    REPLICATES,
    Interval,
    Rankings,
    blocks,
    multiplicities,
    percentile_interval,
    tie_terms,
)

# The rule by which raters are left out; fixed before a study.
LEAST_GOLD = 0.8  # share of gold trials passed
LEAST_MEDIAN_MS = 2000  # of a trial
LEAST_TRIALS = 10  # from which on "the same position always first" is no chance: below 0.2 %


@dataclass(frozen=True)
class Concordance:
    """Mean Kendall's W over captions."""

    mean: float  # 1: all raters of a caption rank alike
    interval: Interval  # of the mean
    chance: float  # the mean that random rankings have: 1/m where m raters ranked each caption
    captions: int


@dataclass(frozen=True)
class RepeatAgreement:
    """Mean Kendall's τ between a rater's first ranking of a caption and a later one."""

    mean: float  # 1: the same ranking again; 0: chance
    pairs: int


@dataclass(frozen=True)
class Share:
    """A share with its Wilson interval of 95 %."""

    value: float
    interval: Interval


def kendall_w(ranks: np.ndarray) -> float:
    """Kendall's W, the concordance of m raters, from 0 to 1; on average 1/m of random rankings.

    W = 12 S / (m² (k³ − k) − m T), S = Σ_j (R_j − m (k + 1) / 2)² of the rank sums R_j, T the sum
    of g³ − g over raters and their groups of g tied methods (Kendall and Babington Smith 1939).

    Args:
        ranks: (m, k); tied methods share their mean rank. Not every rater ties all.
    """
    m, k = ranks.shape
    apart = ranks.sum(axis=0) - m * (k + 1) / 2
    return float(12 * apart @ apart / (m**2 * (k**3 - k) - m * tie_terms(ranks).sum()))


def concordance(
    rankings: Rankings, replicates: int = REPLICATES, seed: int = 0
) -> Concordance | None:
    """Mean W over captions that at least two raters ranked, with a bootstrap over captions.

    Raters are not drawn anew: one drawn twice would agree with their own double.

    Args:
        rankings: of the captions common to all raters, where a study has such (`Rankings.where`).
        replicates: of the bootstrap.
        seed: of its draws.

    Returns:
        None where there are fewer than two such captions: their mean would have no interval.
    """
    _, starts, raters = np.unique(np.sort(rankings.caption), return_index=True, return_counts=True)
    ranks = rankings.ranks[np.argsort(rankings.caption, kind="stable")]
    shared = raters > 1
    if shared.sum() < 2:
        return None
    w = np.array(
        [
            kendall_w(ranks[start : start + m])
            for start, m in zip(starts[shared], raters[shared], strict=True)
        ]
    )
    draws = np.random.default_rng(seed)
    drawn = [
        multiplicities(draws, size, len(w)) @ w / len(w) for size in blocks(replicates, len(w))
    ]
    return Concordance(
        mean=float(w.mean()),
        interval=percentile_interval(np.concatenate(drawn)),
        chance=float((1 / raters[shared]).mean()),
        captions=len(w),
    )


def krippendorff_alpha(rankings: Rankings) -> float | None:
    """Krippendorff's α of all ranks, a unit each (caption, method): see `ordinal_alpha`."""
    _, caption = np.unique(rankings.caption, return_inverse=True)
    k = len(rankings.methods)
    return ordinal_alpha((caption[:, None] * k + np.arange(k)).ravel(), rankings.ranks.ravel())


def ordinal_alpha(unit: np.ndarray, value: np.ndarray) -> float | None:
    """Krippendorff's α with the ordinal metric: 1 is agreement, 0 chance; it may be negative.

    α = 1 − D_o / D_e, D_o the mean δ² of pairs of values within units, a unit weighing as much as
    it has values, D_e that of all pairs, δ²(c, d) = (Σ_{g=c}^{d} n_g − (n_c + n_d) / 2)² with the
    number n_g of values g. A value that is alone in its unit counts nowhere; missing values are
    those not listed (Krippendorff 2011, "Computing Krippendorff's alpha-reliability").

    Args:
        unit: (n,), what was judged.
        value: (n,), what a rater said of it.

    Returns:
        None where no unit has two values, or all values are one: then there is no disagreement to
        expect.
    """
    units, of_unit = np.unique(unit, return_inverse=True)
    values, of_value = np.unique(value, return_inverse=True)
    counts = np.zeros((len(units), len(values)))
    np.add.at(counts, (of_unit, of_value), 1)
    counts = counts[counts.sum(axis=1) > 1]
    n_value = counts.sum(axis=0)
    n = n_value.sum()
    if n_value.max(initial=0) == n:
        return None
    middle = n_value.cumsum() - n_value / 2
    squared = (middle[:, None] - middle) ** 2  # δ²: from the middle of one value's to another's
    within = ((counts @ squared) * counts).sum(axis=1) / (counts.sum(axis=1) - 1)
    observed = within.sum() / n
    expected = n_value @ squared @ n_value / (n * (n - 1))
    return float(1 - observed / expected)


def repeat_agreement(first: Rankings, again: Rankings) -> RepeatAgreement:
    """How far raters agree with themselves: mean τ over captions shown to them once more.

    Args:
        first: of one question.
        again: repeats, of the same question and methods.

    Raises:
        UserError: the methods differ, or a repeat repeats nothing.
    """
    if first.methods != again.methods:
        raise UserError(
            f"repeats: methods {', '.join(again.methods)}; expected {', '.join(first.methods)}"
        )
    before = dict(zip(_trials(first), first.ranks, strict=True))
    found = []
    for (rater, caption), ranks in zip(_trials(again), again.ranks, strict=True):
        if (rater, caption) not in before:
            raise UserError(
                f"repeats: found one of caption {caption} by rater {rater}, expected a first "
                "ranking of it"
            )
        found.append(kendalltau(before[rater, caption], ranks).statistic)
    return RepeatAgreement(float(np.mean(found)), len(found))


def exclusion_reasons(
    gold_passed: np.ndarray, milliseconds: np.ndarray, first_position: np.ndarray
) -> tuple[str, ...]:
    """Why a rater is left out; nothing for one who stays.

    Args:
        gold_passed: (gold trials,) bool; a rater without any is not judged by them.
        milliseconds: (trials,), how long each took.
        first_position: (trials,) int, where on the screen the image stood that was ranked first;
            judged from `LEAST_TRIALS` trials on.
    """
    reasons = []
    if len(gold_passed) and np.mean(gold_passed) < LEAST_GOLD:
        passed, of = np.sum(gold_passed), len(gold_passed)
        reasons.append(f"passed {passed} of {of} gold trials, below {LEAST_GOLD:.0%}")
    if len(milliseconds) and np.median(milliseconds) < LEAST_MEDIAN_MS:
        median, least = np.median(milliseconds) / 1000, LEAST_MEDIAN_MS / 1000
        reasons.append(f"took {median:.3f} s in the median, below {least:g} s")
    if len(first_position) >= LEAST_TRIALS and len(set(first_position.tolist())) == 1:
        position, of = first_position[0], len(first_position)
        reasons.append(f"ranked position {position} first in all {of} trials")
    return tuple(reasons)


def wilson_share(right: int, answers: int) -> Share:
    """The share of right answers (Wilson 1927).

    Args:
        right: how many were right.
        answers: how many there were, at least 1.
    """
    interval = binomtest(right, answers).proportion_ci(CONFIDENCE, method="wilson")
    return Share(right / answers, Interval(float(interval.low), float(interval.high)))


def _trials(rankings: Rankings) -> list[tuple[int, int]]:
    """The rater and the caption of each ranking."""
    return list(zip(rankings.rater.tolist(), rankings.caption.tolist(), strict=True))
