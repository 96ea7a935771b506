from collections import Counter
from itertools import combinations, pairwise

import pytest

from sdn_ray.judging.study import CHOICES, Gold, Study, StudyCaption
from sdn_ray.judging.trials import own_captions, passed, rater_trials


def study(captions=120, methods=4, raters=10, each=3, common=10, golds=12, **changes):
    made = {
        "id": "x",
        "name": "x",
        "version": "0",
        "created": "",
        "seed": 5,
        "size": 32,
        "questions": ("quality", "correlation"),
        "methods": methods,
        "raters": raters,
        "raters_per_caption": each,
        "common": common,
        "captions": tuple(
            StudyCaption(f"c{n}", n % 6, tuple(f"{n}-{m}" for m in range(methods)), f"{n}-real")
            for n in range(captions)
        ),
        "gold": tuple(Gold(f"g{n}", ("",) * methods, n % methods, "first") for n in range(golds)),
    }
    return Study(**made | changes)


def test_every_caption_has_as_many_raters_as_asked_and_the_common_ones_all():
    one = study()
    counted = Counter(int(c) for slot in range(10) for c in own_captions(one, slot))
    assert all(counted[c] == 10 for c in range(10))
    assert all(counted[c] == 3 for c in range(10, 120))
    assert {len(own_captions(one, slot)) for slot in range(10)} == {43}


def test_a_rater_more_than_planned_takes_the_share_of_an_earlier_one_in_another_order():
    one = study()
    assert (own_captions(one, 13) == own_captions(one, 3)).all()
    assert rater_trials(one, 13) != rater_trials(one, 3)


def test_trials_follow_from_the_seed_and_the_number_alone():
    assert rater_trials(study(), 4) == rater_trials(study(), 4)
    assert rater_trials(study(), 4) != rater_trials(study(seed=6), 4)


def test_two_blocks_whose_order_changes_from_rater_to_rater():
    for slot, first in enumerate(("quality", "correlation", "quality", "correlation")):
        questions = [trial.question for trial in rater_trials(study(), slot)]
        assert questions[0] == first
        assert sum(a != b for a, b in pairwise(questions)) == 1


def test_a_block_asks_each_own_caption_once_and_some_twice_the_second_time_in_another_order():
    one = study()
    for slot in range(10):
        for question in one.questions:
            block = [t for t in rater_trials(one, slot) if t.question == question]
            plain = [t.item for t in block if t.kind == "plain"]
            assert sorted(plain) == own_captions(one, slot).tolist()
            repeats = [t for t in block if t.kind == "repeat"]
            assert len(repeats) == round(0.05 * len(plain)) > 0
            for repeat in repeats:
                first = next(t for t in block if t.kind == "plain" and t.item == repeat.item)
                assert block.index(first) < block.index(repeat)
                assert first.order != repeat.order


def test_about_one_of_twelve_trials_is_an_attention_check_spread_over_the_block():
    one = study(golds=20)
    block = [t for t in rater_trials(one, 0) if t.question == "quality"]
    places = [place for place, trial in enumerate(block) if trial.kind == "gold"]
    assert len(block) == 43 + 2 + 4  # own captions, repeats, checks
    assert len(places) == 4
    for quarter, place in enumerate(places):
        assert quarter * 11 <= place <= (quarter + 1) * 12 + 4
    assert len({block[place].item for place in places}) == 4


@pytest.mark.parametrize("methods", [2, 3, 5])
def test_every_method_stands_in_every_place_equally_often(methods):
    one = study(methods=methods)
    for question in one.questions:
        block = [t for t in rater_trials(one, 1) if t.question == question]
        whole = block[: len(block) // methods * methods]
        # A repeat that would look like its first time is turned round; there is one at most.
        counts = Counter(
            (column, place) for trial in whole for place, column in enumerate(trial.order)
        )
        assert len(counts) == methods**2
        for count in counts.values():
            assert abs(count - len(whole) / methods) <= 2


def test_matches_show_each_method_and_the_photograph_with_captions_of_four_classes():
    one = study(questions=("quality", "match"))
    trials = rater_trials(one, 2)
    assert [t.question for t in trials] == sorted((t.question for t in trials), reverse=True)
    block = [t for t in trials if t.question == "match"]
    assert Counter(t.column for t in block).keys() == {0, 1, 2, 3, 4}
    # Of captions that are not the rater's own: their sentences have not been seen.
    unseen = set(own_captions(one, 5).tolist()) - set(own_captions(one, 2).tolist())
    assert sorted(t.item for t in block) == sorted(unseen)
    assert len(unseen) > 20
    for trial in block:
        assert trial.item in trial.order
        assert len(trial.order) == CHOICES
        classes = [one.captions[c].class_id for c in trial.order]
        assert all(a != b for a, b in combinations(classes, 2))


def test_an_attention_check_is_passed_by_its_place():
    assert passed(Gold("", (), 1, "first"), (1, 0, 2))
    assert not passed(Gold("", (), 1, "first"), (0, 1, 2))
    assert passed(Gold("", (), 1, "last"), (0, 2, 1))
    assert not passed(Gold("", (), 1, "last"), (1, 2, 0))
