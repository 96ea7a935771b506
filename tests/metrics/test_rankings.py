from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.stats import binom, chi2, friedmanchisquare, norm

from sdn_ray.errors import UserError
from sdn_ray.metrics import rankings as module
from sdn_ray.metrics.rankings import (
    Interval,
    Rankings,
    bootstrap_mean_ranks,
    compare,
    friedman,
    holm,
    mean_ranks,
    percentile_interval,
    rank_deviations,
    shares_before,
    tie_terms,
)
from tests.measure.study_power import ALIKE, METHODS, PAIR, findings, parser, simulated, utilities

ABC = ("a", "b", "c")


def ranked(rows, methods=ABC) -> Rankings:
    """From rows of (caption, rater, ranks of the methods)."""
    caption, rater, ranks = zip(*rows, strict=True)
    return Rankings(methods, np.array(caption), np.array(rater), np.array(ranks, dtype=float))


def random_rankings(seed: int, captions: int, raters: int, each: int, k: int) -> Rankings:
    """Captions 100, 103, …, raters 7, 9, …, in no order; the first method is a little better."""
    draws = np.random.default_rng(seed)
    rows = []
    for caption in range(captions):
        better = draws.normal(0, 1, k) - 0.5 * (np.arange(k) == 0)
        for rater in draws.permutation(raters)[:each]:
            ranks = np.argsort(np.argsort(better + draws.normal(0, 1, k))) + 1
            rows.append((100 + 3 * caption, 7 + 2 * rater, ranks))
    draws.shuffle(rows)
    return ranked(rows, tuple("abcdefgh"[:k]))


BY_HAND = ranked([(5, 1, [1, 2, 3]), (5, 2, [1, 3, 2]), (9, 1, [2, 1, 3]), (9, 2, [1, 2, 3])])


def test_means_deviations_and_shares_by_hand():
    np.testing.assert_allclose(mean_ranks(BY_HAND), [5 / 4, 2, 11 / 4], rtol=1e-15)
    expected = [(3 / 16) ** 0.5, 0.5**0.5, (3 / 16) ** 0.5]
    np.testing.assert_allclose(rank_deviations(BY_HAND), expected, rtol=1e-12)
    assert shares_before(BY_HAND).tolist() == [[0, 3 / 4, 1], [1 / 4, 0, 3 / 4], [0, 1 / 4, 0]]


@pytest.mark.parametrize("k", [3, 4])
def test_blind_ranks_deviate_as_they_must(k):
    orders = [(0, rater, order) for rater, order in enumerate(permutations(range(1, k + 1)))]
    expected = ((k**2 - 1) / 12) ** 0.5
    deviations = rank_deviations(ranked(orders, tuple("abcd"[:k])))
    np.testing.assert_allclose(deviations, expected, rtol=1e-12)


def test_means_and_shares_belong_together():
    # A method's rank is 1 and one for each method before it.
    rankings = random_rankings(0, 40, 6, 3, 5)
    expected = 1 + shares_before(rankings).sum(axis=0)
    np.testing.assert_allclose(mean_ranks(rankings), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("rows", "methods", "message"),
    [
        ([(3, 1, [1, 2, 3]), (4, 2, [1, 1, 3])], ABC, r"rater 2 .* caption 4 .*\[1.0, 1.0, 3.0\]"),
        ([(3, 1, [0, 1, 2])], ABC, "expected each of 1 to 3 once"),
        ([(3, 1, [1, 2, np.nan])], ABC, "expected each of 1 to 3 once"),
        ([(3, 1, [1, 2])], ABC, r"\(1, 2\); expected \(1,\), \(1,\) and \(1, 3\)"),
        ([(3, 1, [1])], ("a",), "methods a; expected at least two"),
        ([(3, 1, [1, 2, 3])], ("a", "b", "a"), "methods a, b, a; expected .* named once"),
        ([(3, 1, [1, 2, 3]), (3, 1, [1, 3, 2])], ABC, "rater 1 ranked caption 3 2 times"),
    ],
)
def test_what_is_no_ranking_is_refused(rows, methods, message):
    with pytest.raises(UserError, match=message):
        ranked(rows, methods)


def test_no_rankings_are_refused():
    none = np.zeros(len(BY_HAND.ranks), dtype=bool)
    with pytest.raises(UserError, match="found none, expected at least one"):
        BY_HAND.where(none)
    assert BY_HAND.where(BY_HAND.rater == 2).ranks.tolist() == [[1, 3, 2], [1, 2, 3]]


def test_bootstrap_over_captions_of_two_methods_is_binomial():
    # One rater, who put the second method first for 15 of 40 captions: of 40 captions drawn anew a
    # binomial number is of that kind, and the first method's mean rank is 1 and their share.
    n, second_first = 40, 15
    rows = [(i, 0, [2, 1] if i < second_first else [1, 2]) for i in range(n)]
    drawn = bootstrap_mean_ranks(ranked(rows, ("a", "b")), 10_000, seed=1)
    counts = np.rint((drawn[:, 0] - 1) * n).astype(int)
    np.testing.assert_allclose(drawn[:, 0], 1 + counts / n, rtol=1e-12)
    law = binom(n, second_first / n)
    seen = np.bincount(counts, minlength=n + 1) / len(counts)
    error = np.sqrt(law.pmf(np.arange(n + 1)) / len(counts))
    assert (np.abs(seen - law.pmf(np.arange(n + 1))) < 4.5 * error + 1e-4).all()
    interval = percentile_interval(drawn[:, 0])
    # 9 and 21 of 40, whose steps are more than four standard errors from either percentile.
    assert interval == Interval(1 + 9 / n, 1 + 21 / n)
    assert (law.ppf(0.025), law.ppf(0.975)) == (9, 21)
    difference = compare(ranked(rows, ("a", "b")), 10_000, seed=1).pairs[0]
    p = 2 * law.sf(n / 2 - 1)  # of at least half
    assert difference.p == pytest.approx(p, abs=4 * (2 * p / 10_000) ** 0.5)
    swapped = ranked([(i, 0, ranks[::-1]) for i, _, ranks in rows], ("b", "a"))
    assert compare(swapped, 10_000, seed=1).pairs[0].p == difference.p


def product_variance(x: np.ndarray) -> float:
    """Of Σ w_i v_a x_{i,a} / (C A) under multinomial w and v, by their covariances."""
    c, a = x.shape
    of_w, of_v = np.eye(c) - 1 / c, np.eye(a) - 1 / a  # covariances; the means are 1
    second = np.einsum("ia,jb,ij,ab->", x, x, of_w + 1, of_v + 1)
    return (second - x.sum() ** 2) / (c * a) ** 2


def test_bootstrap_over_both_has_the_variance_of_the_product():
    rankings = random_rankings(2, 9, 5, 5, 3)  # all raters rank all captions
    drawn = bootstrap_mean_ranks(rankings, 40_000, seed=3)
    order = np.lexsort((rankings.rater, rankings.caption))
    difference = (rankings.ranks[:, 0] - rankings.ranks[:, 1])[order].reshape(9, 5)
    expected = product_variance(difference)
    found = (drawn[:, 0] - drawn[:, 1]).var()
    assert found == pytest.approx(expected, rel=5 * (2 / 40_000) ** 0.5)
    # Neither captions alone nor raters alone, nor rankings by themselves, would be near it.
    others = [
        difference.mean(axis=1).var() / 9,
        difference.mean(axis=0).var() / 5,
        difference.var() / 45,
    ]
    assert min(abs(expected / one - 1) for one in others) > 0.2


def test_bootstrap_of_incomplete_studies_is_that_of_rankings_written_out():
    rankings = random_rankings(4, 12, 6, 2, 3)
    drawn = bootstrap_mean_ranks(rankings, 20_000, seed=5)
    draws = np.random.default_rng(6)
    captions, raters = np.unique(rankings.caption), np.unique(rankings.rater)
    given = {
        (caption, rater): ranks
        for caption, rater, ranks in zip(
            rankings.caption, rankings.rater, rankings.ranks, strict=True
        )
    }
    slow = []
    while len(slow) < 1_000:
        some, people = draws.choice(captions, len(captions)), draws.choice(raters, len(raters))
        copies = [given[i, a] for i in some for a in people if (i, a) in given]
        slow += [np.mean(copies, axis=0)] if copies else []
    slow = np.array(slow)
    error = (slow.var(axis=0) / len(slow)) ** 0.5
    assert (np.abs(drawn.mean(axis=0) - slow.mean(axis=0)) < 4 * error).all()
    np.testing.assert_allclose(drawn.std(axis=0), slow.std(axis=0), rtol=4 / (2 * 1_000) ** 0.5)
    np.testing.assert_allclose(drawn.sum(axis=1), 6, rtol=1e-12)  # ranks of three add up


def test_the_interval_is_the_normal_one_where_there_are_many_rankings():
    # One rater, 600 captions, blind ranks.
    draws = np.random.default_rng(7)
    ranks = draws.permuted(np.tile(np.arange(1.0, 5), (600, 1)), axis=1)
    rankings = Rankings(tuple("abcd"), np.arange(600), np.zeros(600, int), ranks)
    methods = compare(rankings, 4000, seed=8).methods
    for j, method in enumerate(methods):
        error = ranks[:, j].std() / 600**0.5
        # A 2.5 % quantile of 4,000 has a standard error of 0.042 deviations.
        for edge, side in ((method.interval.low, -1), (method.interval.high, 1)):
            assert abs(edge - (method.mean + side * norm.ppf(0.975) * error)) < 4 * 0.042 * error
        assert method.deviation == pytest.approx(ranks[:, j].std(), rel=1e-12)


def test_replicates_depend_on_the_seed_and_not_on_the_block(monkeypatch):
    rankings = random_rankings(9, 30, 6, 3, 4)
    drawn = bootstrap_mean_ranks(rankings, 500, seed=1)
    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", 7 * (30 + 6 * 5))  # blocks of 7
    np.testing.assert_array_equal(bootstrap_mean_ranks(rankings, 500, seed=1), drawn)
    assert not np.array_equal(bootstrap_mean_ranks(rankings, 500, seed=2), drawn)


def test_replicates_without_a_ranking_are_left_out():
    # Two captions, two raters, one ranking each.
    rankings = ranked([(0, 0, [1, 2, 3]), (1, 1, [3, 2, 1])])
    drawn = bootstrap_mean_ranks(rankings, 4000, seed=0)
    # Nothing counts where one caption and the other rater were drawn twice: 2 · 1/4 · 1/4.
    assert len(drawn) / 4000 == pytest.approx(7 / 8, abs=4 * (7 / 64 / 4000) ** 0.5)
    assert np.isfinite(drawn).all()


def test_pairs_come_from_the_same_replicates():
    rankings = random_rankings(10, 60, 8, 3, 4)
    drawn = bootstrap_mean_ranks(rankings, 999, seed=4)
    found = compare(rankings, 999, seed=4)
    assert [(pair.first, pair.second) for pair in found.pairs] == list(combinations("abcd", 2))
    for pair in found.pairs:
        one, other = "abcd".index(pair.first), "abcd".index(pair.second)
        difference = drawn[:, one] - drawn[:, other]
        assert pair.interval == percentile_interval(difference)
        assert pair.mean == found.methods[one].mean - found.methods[other].mean
        assert pair.before == shares_before(rankings)[one, other]
        sides = (difference <= 0).sum(), (difference >= 0).sum()
        assert pair.p == pytest.approx(min(1, 2 * (1 + min(sides)) / 1000), rel=1e-12)
    p = np.array([pair.p for pair in found.pairs])
    np.testing.assert_array_equal([pair.p_holm for pair in found.pairs], holm(p))


def test_a_certain_difference_has_the_smallest_p_and_none_has_one():
    certain = ranked([(i, a, [1, 2, 3]) for i in range(5) for a in range(2)])
    assert {pair.p for pair in compare(certain, 999).pairs} == {2 / 1000}
    even = ranked([(0, a, order) for a, order in enumerate(permutations((1, 2, 3)))])
    assert compare(even, 999).pairs[0].p > 0.5


def test_holm_by_hand():
    # 4 · 0.01, 3 · 0.02, the one before since 2 · 0.022 is less, 1 · 0.6
    np.testing.assert_allclose(holm(np.array([0.02, 0.6, 0.01, 0.022])), [0.06, 0.6, 0.04, 0.06])
    assert holm(np.array([0.5, 0.9, 0.4])).tolist() == [1, 1, 1]


def test_friedman_by_hand():
    # Rank sums of three captions 4, 6, 8: 12 / (3 · 3 · 4) · (16 + 36 + 64) − 3 · 3 · 4 = 8/3.
    found = friedman(ranked([(0, 0, [1, 2, 3]), (1, 0, [2, 1, 3]), (2, 0, [1, 3, 2])]))
    assert found.statistic == pytest.approx(8 / 3, rel=1e-12)
    assert (found.degrees, found.captions) == (2, 3)
    assert found.p == pytest.approx(np.exp(-4 / 3), rel=1e-12)  # of two degrees of freedom


@pytest.mark.parametrize("each", [1, 2, 3, 4])
@pytest.mark.parametrize("k", [3, 4, 5])
def test_friedman_is_scipys_on_mean_ranks(each, k):
    rankings = random_rankings(each, 50, 8, each, k)
    means = np.array(
        [
            rankings.ranks[rankings.caption == one].mean(axis=0)
            for one in np.unique(rankings.caption)
        ]
    )
    ties = sum(len(set(row)) < k for row in means)
    assert (ties > 5) == (each > 1)  # so that both kinds are tried
    expected = friedmanchisquare(*means.T)
    found = friedman(rankings)
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-9)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.captions == 50


def test_friedman_without_ties_is_the_formula_as_printed():
    rankings = random_rankings(11, 80, 4, 1, 4)
    n, k = 80, 4
    sums = rankings.ranks.sum(axis=0)
    expected = 12 / (n * k * (k + 1)) * (sums**2).sum() - 3 * n * (k + 1)
    assert friedman(rankings).statistic == pytest.approx(expected, rel=1e-9)


def test_friedman_of_two_methods_is_the_sign_test():
    rankings = ranked([(i, 0, [1, 2] if i < 14 else [2, 1]) for i in range(20)], ("a", "b"))
    assert friedman(rankings).statistic == pytest.approx((14 - 6) ** 2 / 20, rel=1e-12)
    # A caption on which two raters cancel out adds nothing.
    rows = [(i, 0, [1, 2] if i < 14 else [2, 1]) for i in range(20)]
    more = ranked([*rows, (20, 0, [1, 2]), (20, 1, [2, 1])], ("a", "b"))
    assert friedman(more).statistic == pytest.approx((14 - 6) ** 2 / 20, rel=1e-12)


def test_friedman_where_all_tie_finds_nothing():
    found = friedman(ranked([(0, 0, [1, 2, 3]), (0, 1, [3, 2, 1])]))
    assert (found.statistic, found.p) == (0, 1)


def test_friedman_rejects_as_often_as_it_says():
    draws = np.random.default_rng(12)
    means, sixty = utilities(ALIKE), options(captions=60)
    found = [friedman(simulated(draws, means, sixty, 0.0, 0.3)).statistic for _ in range(200)]
    beyond = np.mean(np.array(found) > chi2.ppf(0.8, 3))
    assert beyond == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / 200) ** 0.5)


def test_tie_terms_count_groups():
    ranks = np.array([[1, 2, 3, 4], [1.5, 1.5, 3.5, 3.5], [2, 2, 2, 4], [2.5, 2.5, 2.5, 2.5]])
    assert tie_terms(ranks).tolist() == [0, 12, 24, 60]


def options(**changed):
    found = parser().parse_args([])
    vars(found).update(changed)
    return found


def test_simulated_studies_have_the_mean_ranks_that_were_planted():
    planted = (2.9, 2.5, 2.7, 1.9)
    rankings = simulated(
        np.random.default_rng(0), utilities(planted), options(captions=10_000), 0.0, 0.3
    )
    assert rankings.methods == METHODS
    # The standard error is at most that of 10,000 rankings: 0.011.
    np.testing.assert_allclose(mean_ranks(rankings), planted, atol=0.04)


SMALL = {"studies": 20, "captions": 120, "raters": 10, "each": 3, "replicates": 400}


def test_small_studies_find_a_large_difference():
    planted = (2.5, 2.5, 2.95, 2.05)
    assert sum(PAIR in found for found in findings(planted, options(**SMALL), 0.1, 0.2)) >= 18


def test_small_studies_find_nothing_where_raters_merely_differ():
    # By their own liking, which captions drawn anew alone would take for a difference in four
    # studies of five.
    assert sum(not found for found in findings(ALIKE, options(**SMALL), 1.0, 0.2)) >= 17
