"""Which trials a rater is asked: drawn from the study's seed and the rater's number alone."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sdn_ray.judging.study import CHOICES, Gold, Question, Study

Kind = Literal["plain", "gold", "repeat"]
_GOLD_EVERY = 12  # trials: about one is an attention check
_REPEATS = 0.05  # share of the captions that come again, in a new order
_OWN = {"quality": 1, "correlation": 2, "match": 3}  # of the random numbers of each question


@dataclass(frozen=True)
class Trial:
    """One question to one rater.

    Of a ranking, ``order`` has the columns from left to right. Of a match, ``order`` has the four
    captions from top to bottom and ``column`` whose picture is shown: one of the methods', or the
    photograph, which is the column after them.
    """

    question: Question
    kind: Kind
    item: int  # of the study's captions, or of its gold
    order: tuple[int, ...]
    column: int | None = None


def rater_trials(study: Study, slot: int) -> tuple[Trial, ...]:
    """All trials of a rater, a block a question.

    Half of the raters begin with quality, the others with correlation; matches come last, since
    they show sentences beside pictures, and are of captions that the rater has not seen, where
    there are such. Rater number ``slot`` is asked about the captions of place ``slot`` modulo the
    study's raters, so a rater too many is one more of a place.

    Args:
        study: asked about.
        slot: the rater's number, from 0.
    """
    ranked = study.ranked if slot % 2 == 0 else study.ranked[::-1]
    blocks = [_ranking_block(study, question, slot) for question in ranked]
    if "match" in study.questions:
        blocks.append(_match_block(study, slot))
    return tuple(trial for block in blocks for trial in block)


def own_captions(study: Study, slot: int) -> np.ndarray:
    """The captions of a rater: the common ones, and a share of the others."""
    rest = np.arange(study.common, len(study.captions))
    place = slot % study.raters
    # Dealt in turn, so that no two raters have numbers of captions that differ by more than one.
    first = (rest - study.common)[:, None] * study.raters_per_caption
    turns = first + np.arange(study.raters_per_caption)
    own = rest[(turns % study.raters == place).any(1)]
    return np.concatenate([np.arange(study.common), own])


def _random(study: Study, question: Question, slot: int) -> np.random.Generator:
    return np.random.default_rng([study.seed, slot, _OWN[question]])


def _ranking_block(study: Study, question: Question, slot: int) -> list[Trial]:
    random = _random(study, question, slot)
    captions = random.permutation(own_captions(study, slot))
    asked: list[tuple[Kind, int]] = [("plain", int(caption)) for caption in captions]
    # Repeats come in the second half, of captions of the first.
    again = random.permutation(captions[: len(captions) // 2])
    for caption in again[: round(_REPEATS * len(captions))]:
        place = int(random.integers(len(captions) // 2 + 1, len(asked) + 1))
        asked.insert(place, ("repeat", int(caption)))
    gold = random.permutation(len(study.gold))[: len(asked) // (_GOLD_EVERY - 1)]
    step = len(asked) / max(1, len(gold))
    for number, item in reversed(list(enumerate(gold))):
        place = int(number * step + random.uniform(0, step))
        asked.insert(place, ("gold", int(item)))
    orders = _balanced_orders(len(asked), study.methods, random)
    trials: list[Trial] = []
    shown: dict[int, tuple[int, ...]] = {}
    for (kind, item), order in zip(asked, orders, strict=True):
        if kind == "repeat" and order == shown[item]:
            order = order[::-1]  # else it would tell whether places are remembered
        elif kind == "plain":
            shown[item] = order
        trials.append(Trial(question, kind, item, order))
    return trials


def _balanced_orders(
    trials: int, columns: int, random: np.random.Generator
) -> list[tuple[int, ...]]:
    """Every column stands in every place equally often, over each ``columns`` trials on end."""
    orders: list[tuple[int, ...]] = []
    while len(orders) < trials:
        first = random.permutation(columns)
        turns = random.permutation(columns)
        orders += [tuple(np.roll(first, turn).tolist()) for turn in turns]
    return orders[:trials]


def _match_block(study: Study, slot: int) -> list[Trial]:
    random = _random(study, "match", slot)
    seen = own_captions(study, slot)
    others_own = own_captions(study, slot + study.raters_per_caption)
    unseen = np.setdiff1d(others_own, seen)
    captions = random.permutation(unseen if len(unseen) else seen)
    classes = [caption.class_id for caption in study.captions]
    trials = []
    for number, caption in enumerate(captions):
        column = (number + slot) % (study.methods + 1)
        others: list[int] = []
        for other in random.permutation(len(classes)).tolist():
            taken = {classes[one] for one in others} | {classes[caption]}
            if classes[other] not in taken:
                others.append(other)
            if len(others) == CHOICES - 1:
                break
        order = random.permutation([int(caption), *others])
        trials.append(Trial("match", "plain", int(caption), tuple(order.tolist()), column))
    return trials


def passed(gold: Gold, ranking: tuple[int, ...]) -> bool:
    """Whether an attention check was: a ranking has the columns from the best to the worst."""
    return ranking[0 if gold.place == "first" else -1] == gold.column
