from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, norm, rankdata, spearmanr

from sdn_ray.errors import UserError
from sdn_ray.metrics.agreement import (
    RepeatAgreement,
    concordance,
    exclusion_reasons,
    kendall_w,
    krippendorff_alpha,
    ordinal_alpha,
    repeat_agreement,
    wilson_share,
)
from sdn_ray.metrics.rankings import Rankings

METHODS = ("a", "b", "c", "d")
X = np.nan
# Krippendorff 2011, "Computing Krippendorff's alpha-reliability", D: four observers, twelve units.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, X, X, X],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, X, 3],
        [X, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, X],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, X],
    ]
)


def study(seed: int, captions: int, raters: int, each: int, noise: float) -> Rankings:
    """Each caption ranked by some raters, who see the same but for noise."""
    draws = np.random.default_rng(seed)
    caption = np.repeat(np.arange(captions), each)
    rater = np.concatenate([draws.permutation(raters)[:each] for _ in range(captions)])
    seen = draws.normal(0, 1, (captions, 4))[caption] + noise * draws.normal(0, 1, (len(rater), 4))
    order = draws.permutation(len(rater))
    return Rankings(METHODS, caption[order], rater[order], rankdata(seen, axis=1)[order])


def observed_values(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Units and values of a table of observers and units."""
    _, unit = np.nonzero(~np.isnan(table))
    return unit, table[~np.isnan(table)]


def alpha_by_pairs(table: np.ndarray) -> float:
    """From the definition: every pair of values, one after the other."""
    units = [column[~np.isnan(column)].tolist() for column in table.T]
    units = [values for values in units if len(values) > 1]
    everything = [value for values in units for value in values]

    def squared(c: float, d: float) -> float:
        low, high = min(c, d), max(c, d)
        between = sum(low <= value <= high for value in everything)
        return (between - (everything.count(c) + everything.count(d)) / 2) ** 2

    n = len(everything)
    observed = sum(
        squared(v, w) / (len(values) - 1)
        for values in units
        for a, v in enumerate(values)
        for b, w in enumerate(values)
        if a != b
    )
    expected = sum(
        squared(v, w) for a, v in enumerate(everything) for b, w in enumerate(everything) if a != b
    )
    return 1 - (observed / n) / (expected / (n * (n - 1)))


def test_alpha_of_the_published_example():
    assert ordinal_alpha(*observed_values(PUBLISHED)) == pytest.approx(0.815, abs=5e-4)
    assert ordinal_alpha(*observed_values(PUBLISHED)) == pytest.approx(
        alpha_by_pairs(PUBLISHED), abs=1e-12
    )


@pytest.mark.parametrize("seed", range(4))
def test_alpha_is_that_of_all_pairs(seed):
    draws = np.random.default_rng(seed)
    table = draws.integers(1, 6, (5, 14)).astype(float) * 2.5  # values need not be 1, 2, …
    table[draws.random(table.shape) < 0.4] = X
    assert ordinal_alpha(*observed_values(table)) == pytest.approx(alpha_by_pairs(table), abs=1e-9)


def test_alpha_of_rankings_has_a_unit_for_each_caption_and_method():
    rankings = study(0, captions=9, raters=6, each=3, noise=1.0)
    alone = Rankings(
        METHODS,
        np.append(rankings.caption, 77),  # ranked by one rater alone: it counts nowhere
        np.append(rankings.rater, 0),
        np.vstack([rankings.ranks, [4, 3, 2, 1]]),
    )
    table = np.full((6, 10 * 4), X)
    for caption, rater, ranks in zip(alone.caption, alone.rater, alone.ranks, strict=True):
        start = 4 * min(caption, 9)
        table[rater, start : start + 4] = ranks
    found = krippendorff_alpha(alone)
    assert found == pytest.approx(alpha_by_pairs(table), abs=1e-9)
    assert found == krippendorff_alpha(rankings)
    assert 0 < found < 1


def test_alpha_of_the_same_and_of_random_and_of_opposite_rankings():
    assert krippendorff_alpha(study(1, 20, 5, 3, noise=0.0)) == pytest.approx(1, abs=1e-12)
    # 4,000 pairs of rankings of four: about 1/√(4,000 · 3) of standard error.
    assert krippendorff_alpha(study(2, 4000, 5, 2, noise=1e6)) == pytest.approx(0, abs=0.037)
    both = np.array([[1.0, 2, 3, 4], [4, 3, 2, 1]])
    assert krippendorff_alpha(Rankings(METHODS, np.zeros(2, int), np.arange(2), both)) < -0.5


def test_alpha_needs_values_to_compare():
    assert ordinal_alpha(np.array([1, 2, 3]), np.array([1, 2, 1])) is None
    assert ordinal_alpha(np.array([1, 1, 2]), np.array([4, 4, 2])) is None
    assert krippendorff_alpha(study(3, 5, 4, 1, noise=1.0)) is None


def w_by_counting(ranks: np.ndarray) -> float:
    """Spread of rank sums over the spread that they would have if all raters agreed."""
    m, k = ranks.shape
    sums = [sum(row[j] for row in ranks) for j in range(k)]
    spread = sum((one - m * (k + 1) / 2) ** 2 for one in sums)
    ties = sum(
        sum(1 for value in row if value == group) ** 3 - sum(1 for value in row if value == group)
        for row in ranks
        for group in set(row)
    )
    return 12 * spread / (m * m * (k**3 - k) - m * ties)


def test_w_by_hand():
    # Sums 4, 6, 8 of three raters: S = 8, W = 96 / (9 · 24).
    assert kendall_w(np.array([[1, 2, 3], [1, 3, 2], [2, 1, 3]])) == pytest.approx(4 / 9, abs=1e-12)
    assert kendall_w(np.array([[2, 1, 3, 4]] * 5)) == 1
    assert kendall_w(np.array([[1, 2, 3, 4], [4, 3, 2, 1]])) == 0
    assert kendall_w(np.array([[1.5, 1.5, 3]] * 4)) == 1  # ties in which all agree


@pytest.mark.parametrize("m", [2, 3, 7])
def test_w_is_that_of_counting_and_of_friedman_with_ties(m):
    draws = np.random.default_rng(m)
    for _ in range(5):
        ranks = rankdata(draws.integers(0, 4, (m, 5)), axis=1)
        assert kendall_w(ranks) == pytest.approx(w_by_counting(ranks), abs=1e-9)
        # Raters as blocks: χ² = m (k − 1) W.
        assert kendall_w(ranks) == pytest.approx(
            friedmanchisquare(*ranks.T).statistic / (m * 4), abs=1e-9
        )


@pytest.mark.parametrize("m", [2, 3, 6])
def test_w_goes_with_the_mean_rank_correlation_of_pairs(m):
    draws = np.random.default_rng(10 + m)
    ranks = draws.permuted(np.tile(np.arange(1.0, 6), (m, 1)), axis=1)
    pairs = [spearmanr(ranks[a], ranks[b]).statistic for a, b in combinations(range(m), 2)]
    expected = (1 + (m - 1) * np.mean(pairs)) / m
    assert kendall_w(ranks) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("m", [2, 3])
def test_w_of_random_rankings_is_one_over_m_on_average(m):
    orders = [np.array(order) for order in permutations((1, 2, 3))]
    everything = np.array(np.meshgrid(*[range(6)] * m)).reshape(m, -1).T
    values = [kendall_w(np.array([orders[one] for one in row])) for row in everything]
    assert np.mean(values) == pytest.approx(1 / m, abs=1e-12)


def test_concordance_is_the_mean_over_captions_that_are_shared():
    two, three = study(4, 15, 6, 2, noise=0.7), study(5, 25, 6, 3, noise=0.7)
    one = study(6, 10, 6, 1, noise=0.7)
    mixed = Rankings(
        METHODS,
        np.concatenate([two.caption, 100 + three.caption, 200 + one.caption]),
        np.concatenate([two.rater, three.rater, one.rater]),
        np.concatenate([two.ranks, three.ranks, one.ranks]),
    )
    values = [
        w_by_counting(some.ranks[some.caption == caption])
        for some in (two, three)
        for caption in np.unique(some.caption)
    ]
    found = concordance(mixed, seed=2)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.chance == pytest.approx((15 / 2 + 25 / 3) / 40, abs=1e-12)
    assert found.captions == 40
    # A 2.5 % quantile of 10,000 has a standard error of 0.027 deviations; the rest is skewness.
    error = np.std(values) / 40**0.5
    for edge, side in ((found.interval.low, -1), (found.interval.high, 1)):
        assert edge == pytest.approx(found.mean + side * norm.ppf(0.975) * error, abs=0.2 * error)
    assert concordance(mixed, seed=2) == found
    assert concordance(mixed, seed=3).interval != found.interval


def test_concordance_of_random_rankings_is_at_chance():
    found = concordance(study(7, 800, 8, 4, noise=1e6), replicates=500)
    assert found.chance == 0.25
    assert found.interval.low - 0.01 < found.chance < found.interval.high + 0.01


def test_concordance_needs_two_shared_captions():
    assert concordance(study(8, 30, 5, 1, noise=1.0)) is None
    assert concordance(study(8, 1, 5, 4, noise=1.0)) is None


def test_repeats_are_compared_with_the_same_rater_and_caption():
    first = Rankings(
        METHODS,
        np.array([4, 5, 4, 6]),
        np.array([1, 1, 2, 2]),
        np.array([[1.0, 2, 3, 4], [4, 3, 2, 1], [2, 1, 4, 3], [1, 3, 2, 4]]),
    )
    again = Rankings(
        METHODS,
        np.array([4, 5, 4]),
        np.array([2, 1, 1]),
        # Of six pairs of methods 0, 6 and 1 are the other way round.
        np.array([[2.0, 1, 4, 3], [1, 2, 3, 4], [1, 2, 4, 3]]),
    )
    assert repeat_agreement(first, again) == RepeatAgreement(
        pytest.approx((1 - 1 + 4 / 6) / 3, abs=1e-12), 3
    )
    with pytest.raises(UserError, match="caption 6 by rater 2, expected a first ranking"):
        repeat_agreement(again, first)
    others = Rankings(METHODS[::-1], again.caption, again.rater, again.ranks)
    with pytest.raises(UserError, match="methods d, c, b, a; expected a, b, c, d"):
        repeat_agreement(first, others)


def conduct(passed=9, gold=10, milliseconds=(4000, 5000, 1000), positions=(1, 2) * 10):
    return exclusion_reasons(
        np.arange(gold) < passed, np.array(milliseconds), np.array(positions, dtype=int)
    )


@pytest.mark.parametrize(
    ("changed", "reasons"),
    [
        ({}, ()),
        ({"passed": 8}, ()),  # 80 % is not below it
        ({"passed": 7}, ("passed 7 of 10 gold trials, below 80%",)),
        ({"passed": 0, "gold": 0}, ()),
        ({"milliseconds": (2000, 2000, 90_000)}, ()),
        ({"milliseconds": (1999, 1000, 9000)}, ("took 1.999 s in the median, below 2 s",)),
        ({"positions": (3,) * 10}, ("ranked position 3 first in all 10 trials",)),
        ({"positions": (3,) * 99 + (1,)}, ()),
        ({"positions": (3,) * 9}, ()),  # too few to tell
        ({"positions": (), "milliseconds": ()}, ()),
    ],
)
def test_raters_are_left_out_by_the_rule(changed, reasons):
    assert conduct(**changed) == reasons


def test_all_reasons_are_given():
    assert len(conduct(passed=1, milliseconds=(100,), positions=(2,) * 12)) == 3


@pytest.mark.parametrize(("right", "answers"), [(0, 7), (7, 7), (3, 10), (180, 200)])
def test_wilson_interval_is_the_formula(right, answers):
    z = norm.ppf(0.975)
    p, n = right / answers, answers
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5 / (1 + z * z / n)
    found = wilson_share(right, answers)
    assert found.value == p
    assert found.interval.low == pytest.approx(middle - half, abs=1e-9)
    assert found.interval.high == pytest.approx(middle + half, abs=1e-9)
