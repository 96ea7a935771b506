"""What the answers of a study say: rankings told apart by question, raters left out, figures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdn_ray.judging.answers import Answer
from sdn_ray.judging.study import Key, Study
from sdn_ray.judging.trials import passed
from sdn_ray.metrics.agreement import (
    Concordance,
    RepeatAgreement,
    Share,
    concordance,
    exclusion_reasons,
    krippendorff_alpha,
    repeat_agreement,
    wilson_share,
)
from sdn_ray.metrics.rankings import (
    Comparison,
    Friedman,
    Rankings,
    compare,
    friedman,
    mean_ranks,
)

PHOTOGRAPH = "photograph"


@dataclass(frozen=True)
class QuestionFindings:
    """Of one question whose answer is an order."""

    question: str
    rankings: int
    captions: int
    raters: int
    comparison: Comparison
    friedman: Friedman | None  # None: fewer than two captions
    concordance: Concordance | None  # on the common captions
    alpha: float | None
    repeats: RepeatAgreement | None
    with_excluded: dict[str, float]  # mean ranks if nobody had been left out


@dataclass(frozen=True)
class Findings:
    """Of a whole study."""

    raters: int  # who answered anything
    finished: int
    excluded: dict[int, tuple[str, ...]]  # a rater's number, and why
    questions: tuple[QuestionFindings, ...]
    matches: dict[str, Share]  # right answers of each method, and of photographs


def find(study: Study, key: Key, answers: Sequence[Answer], trials_of: dict[int, int]) -> Findings:
    """Everything that is reported.

    Args:
        study: asked about.
        key: whose columns they are.
        answers: all of them.
        trials_of: how many trials each rater has.

    Returns:
        A question is left out that no rater is left of.
    """
    raters = sorted({one.slot for one in answers})
    excluded = {slot: reasons for slot in raters if (reasons := _reasons(study, answers, slot))}
    kept = [one for one in answers if one.slot not in excluded]
    answered = {slot: sum(one.slot == slot for one in answers) for slot in raters}
    questions = [
        _question(study, key, question, kept, answers)
        for question in study.ranked
        if any(one.question == question and one.kind == "plain" for one in kept)
    ]
    return Findings(
        raters=len(raters),
        finished=sum(answered[slot] >= trials_of[slot] for slot in raters),
        excluded=excluded,
        questions=tuple(questions),
        matches=_matches(study, key, kept),
    )


def _reasons(study: Study, answers: Sequence[Answer], slot: int) -> tuple[str, ...]:
    ranked = [one for one in answers if one.slot == slot and one.question != "match"]
    gold = [passed(study.gold[one.item], one.answer) for one in ranked if one.kind == "gold"]
    return exclusion_reasons(
        np.array(gold, bool),
        np.array([one.milliseconds for one in ranked], float),
        # As people count places, from the left.
        np.array([one.shown.index(one.answer[0]) + 1 for one in ranked], int),
    )


def rankings(key: Key, answers: Sequence[Answer], question: str, kind: str) -> Rankings | None:
    """The answers to a question as ranks of the methods; None where there are none."""
    chosen = [one for one in answers if one.question == question and one.kind == kind]
    if not chosen:
        return None
    orders = np.array([one.answer for one in chosen])
    return Rankings(
        methods=key.methods,
        caption=np.array([one.item for one in chosen]),
        rater=np.array([one.slot for one in chosen]),
        # The rank of a column is its place in the order: the inverse permutation.
        ranks=np.argsort(orders, axis=1).astype(float) + 1,
    )


def _question(
    study: Study, key: Key, question: str, kept: Sequence[Answer], everyone: Sequence[Answer]
) -> QuestionFindings:
    found, whole = (rankings(key, one, question, "plain") for one in (kept, everyone))
    assert found is not None
    assert whole is not None
    common = found.caption < study.common
    again = rankings(key, kept, question, "repeat")
    captions = len(np.unique(found.caption))
    return QuestionFindings(
        question=question,
        rankings=len(found.ranks),
        captions=captions,
        raters=len(np.unique(found.rater)),
        comparison=compare(found, seed=study.seed),
        friedman=friedman(found) if captions > 1 else None,
        concordance=concordance(found.where(common), seed=study.seed) if common.any() else None,
        alpha=krippendorff_alpha(found),
        repeats=repeat_agreement(found, again) if again else None,
        with_excluded=dict(zip(whole.methods, mean_ranks(whole).tolist(), strict=True)),
    )


def _matches(study: Study, key: Key, answers: Sequence[Answer]) -> dict[str, Share]:
    found = {}
    for column, name in enumerate((*key.methods, PHOTOGRAPH)):
        own = [one for one in answers if one.question == "match" and one.picture == column]
        if own:
            right = sum(one.answer == (one.item,) for one in own)
            found[name] = wilson_share(right, len(own))
    return found
