"""Does a study of Table 2's size find what it should? python -m tests.measure.study_power.

Studies are simulated whose mean ranks are known, and compared as real ones are (bootstrap over
captions and raters, Holm). In planted studies methods differ as in Table 2, and SDN must be found
better than StackGAN; in null studies they are alike, and no difference must be found.

A rater's utility of an image is normal with variance 1 in all: the method's mean; what all raters
see in that image, whose share of the variance is `--agreement`; the rater's own liking of the
method, by which the difference of two methods' mean ranks scatters between raters (`--scatter`, a
standard deviation in ranks); the rest is of that trial alone.
"""

import argparse
import time

import numpy as np
from scipy.optimize import root
from scipy.stats import norm

from sdn_ray.metrics.agreement import wilson_share
from sdn_ray.metrics.rankings import Rankings, compare

# Table 2, CUB, quality, without the last hundredth that a column's sum is short of.
METHODS = ("GAN-INT-CLS", "GAWWN", "StackGAN", "SDN")
TABLE_2 = (2.77, 2.53, 2.44, 2.26)
# The same difference of the same two methods alone, the others in the middle.
ONE_PAIR = (2.5, 2.5, 2.59, 2.41)
PAIR = ("StackGAN", "SDN")
ALIKE = (2.5,) * 4
LEVEL = 0.05


def utilities(mean_ranks: tuple[float, ...]) -> np.ndarray:
    """The means of normal utilities of variance 1 that lead to given mean ranks, (k,)."""
    expected = np.array(mean_ranks)

    def excess(means: np.ndarray) -> np.ndarray:
        worse = norm.cdf((means - means[:, None]) / np.sqrt(2))  # [j, l]: l stands before j
        found = 0.5 + worse.sum(axis=1) - expected
        return np.append(found[:-1], means.sum())  # ranks add up anyway, utilities need a zero

    solution = root(excess, np.zeros(len(expected)), tol=1e-12)
    assert solution.success, solution.message
    return solution.x


def simulated(
    draws: np.random.Generator,
    means: np.ndarray,
    options: argparse.Namespace,
    scatter: float,
    agreement: float,
) -> Rankings:
    """One study: every caption is ranked by some of the raters, drawn at random."""
    k = len(means)
    # A step of one method's utility moves its mean rank less another's by k / (2 √π) a unit.
    of_liking = scatter * np.sqrt(2 * np.pi) / k
    caption = np.repeat(np.arange(options.captions), options.each)
    everyone = np.tile(np.arange(options.raters), (options.captions, 1))
    rater = draws.permuted(everyone, axis=1)[:, : options.each].ravel()
    seen = draws.normal(0, np.sqrt(agreement), (options.captions, k))
    liking = draws.normal(0, of_liking, (options.raters, k))
    alone = draws.normal(0, np.sqrt(1 - agreement - of_liking**2), (len(caption), k))
    utility = means + seen[caption] + liking[rater] + alone
    ranks = np.argsort(np.argsort(-utility, axis=1), axis=1) + 1.0
    return Rankings(METHODS, caption, rater, ranks)


def found_pairs(rankings: Rankings, replicates: int, seed: int) -> set[tuple[str, str]]:
    """The pairs (worse, better) that a study tells apart."""
    return {
        (pair.first, pair.second) if pair.mean > 0 else (pair.second, pair.first)
        for pair in compare(rankings, replicates, seed).pairs
        if pair.p_holm < LEVEL
    }


def findings(
    mean_ranks: tuple[float, ...],
    options: argparse.Namespace,
    scatter: float = 0.0,
    agreement: float = 0.0,
) -> list[set[tuple[str, str]]]:
    """What each of many studies finds."""
    means = utilities(mean_ranks)
    return [
        found_pairs(
            simulated(
                np.random.default_rng([options.seed, study]), means, options, scatter, agreement
            ),
            options.replicates,
            study,
        )
        for study in range(options.studies)
    ]


def percent(hits: int, of: int) -> str:
    """A share with its interval."""
    share = wilson_share(hits, of)
    low, high = share.interval.low, share.interval.high
    return f"{share.value:6.1%} ({low:.1%} to {high:.1%})"


def parser() -> argparse.ArgumentParser:
    """The options, whose defaults are Table 2's size."""
    found = argparse.ArgumentParser(description=__doc__)
    found.add_argument("--studies", type=int, default=200, help="of each kind")
    found.add_argument("--captions", type=int, default=1000)
    found.add_argument("--raters", type=int, default=10)
    found.add_argument("--each", type=int, default=3, help="raters of a caption")
    found.add_argument("--replicates", type=int, default=1000, help="a real study has 10,000")
    found.add_argument("--scatter", type=float, nargs="+", default=[0.0, 0.045, 0.09])
    found.add_argument("--agreement", type=float, nargs="+", default=[0.0, 0.3])
    found.add_argument("--seed", type=int, default=0)
    return found


def main() -> None:
    """Measure, and print a line for each setting."""
    options = parser().parse_args()
    print(
        f"{options.studies} studies of each kind, {options.captions} captions, {options.each} of "
        f"{options.raters} raters each, {options.replicates} replicates; shares of studies that "
        f"found {PAIR[1]} before {PAIR[0]} where it is, and nothing where nothing is",
        flush=True,
    )
    began = time.perf_counter()
    for agreement in options.agreement:
        for scatter in options.scatter:
            table, alone, null = (
                findings(mean_ranks, options, scatter, agreement)
                for mean_ranks in (TABLE_2, ONE_PAIR, ALIKE)
            )
            print(
                f"agreement {agreement:g}, scatter {scatter:g}: "
                f"Table 2's four {percent(sum(PAIR in one for one in table), len(table))}, "
                f"that pair alone {percent(sum(PAIR in one for one in alone), len(alone))}, "
                f"null {percent(sum(not one for one in null), len(null))}",
                flush=True,
            )
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
