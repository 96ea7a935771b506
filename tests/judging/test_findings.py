"""A study of three methods with answers written by hand, and what is said of them."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from sdn_ray.errors import UserError
from sdn_ray.judging.answers import Answer, Answers, sqlite_url
from sdn_ray.judging.findings import PHOTOGRAPH, find, rankings
from sdn_ray.judging.report import report_study, report_text, tables
from sdn_ray.judging.study import Key, write_study
from sdn_ray.judging.trials import Trial
from sdn_ray.runs.terminal import Display
from tests.judging.test_trials import study as new_study

KEY = Key("00", ("a", "b", "c"), "flowers", (None,) * 3, (None,) * 3)
STUDY = new_study(captions=6, methods=3, raters=2, each=1, common=2, golds=3)


def answer(slot, item, order, **changes):
    made = {
        "slot": slot,
        "trial": 0,
        "question": "quality",
        "kind": "plain",
        "item": item,
        "shown": (item % 3, (item + 1) % 3, (item + 2) % 3),
        "answer": order,
        "picture": None,
        "milliseconds": 4000,
        "page": "",
        "answered": "",
    }
    return Answer(**made | changes)


# Rater 0 likes a, c, b of captions 0, 1, 2, 4; rater 1 a, c, b of caption 0, of others c, a, b.
ANSWERS = [
    *(answer(0, item, (0, 2, 1)) for item in (0, 1, 2, 4)),
    answer(1, 0, (0, 2, 1)),
    *(answer(1, item, (2, 0, 1)) for item in (1, 3, 5)),
]


def found(answers=ANSWERS, study=STUDY):
    return find(study, KEY, answers, {0: 4, 1: 5, 2: 5})


def test_orders_become_ranks_of_the_methods():
    made = rankings(KEY, [answer(0, 0, (1, 2, 0)), answer(0, 1, (0, 1, 2))], "quality", "plain")
    assert made.ranks.tolist() == [[3, 1, 2], [1, 2, 3]]


def test_mean_ranks_by_hand():
    (one,) = found().questions
    means = {row.method: row.mean for row in one.comparison.methods}
    assert means == {"a": 11 / 8, "b": 3, "c": 13 / 8}
    assert (one.rankings, one.captions, one.raters) == (8, 6, 2)
    before = {(p.first, p.second): p.before for p in one.comparison.pairs}
    assert before["a", "c"] == 5 / 8


def test_agreement_is_of_the_common_captions():
    (one,) = found().questions
    # Of caption 0 both say the same, W 1; of caption 1 the rank sums are 3, 6, 3: W = 0.75.
    assert one.concordance.captions == 2
    assert one.concordance.mean == pytest.approx((1 + 0.75) / 2)


def test_who_has_finished_is_counted():
    assert (found().raters, found().finished) == (2, 1)


def test_a_careless_rater_is_left_out_and_told_with_the_reason():
    careless = [answer(2, item, (1, 0, 2), milliseconds=900) for item in range(6)]
    one = found([*ANSWERS, *careless])
    assert list(one.excluded) == [2]
    assert "took 0.900 s in the median" in one.excluded[2][0]
    (question,) = one.questions
    assert question.rankings == 8
    # Ranks of a: eleven of eight rankings, and twice six.
    assert question.with_excluded["a"] == pytest.approx((11 + 12) / 14)


def test_a_rater_who_fails_the_checks_is_left_out():
    gold = STUDY.gold[0]  # column 0 belongs first
    failed = [
        answer(2, 0, (1, 0, 2)),
        answer(2, 0, (1, 2, 0), kind="gold"),
        answer(2, 1, (1, 0, 2), kind="gold"),
    ]
    assert gold.column == 0
    assert "passed 1 of 2 gold trials" in found([*ANSWERS, *failed]).excluded[2][0]


def test_repeats_are_compared_with_the_first_time():
    again = [answer(0, 0, (0, 2, 1), kind="repeat"), answer(0, 1, (1, 2, 0), kind="repeat")]
    (one,) = found([*ANSWERS, *again]).questions
    # The same order has τ 1, the reverse one −1.
    assert (one.repeats.mean, one.repeats.pairs) == (0, 2)
    assert one.rankings == 8


def test_matches_count_the_caption_itself():
    matches = [
        answer(0, item, (said,), question="match", shown=(0, 1, 2, 3), picture=column)
        for item, said, column in ((0, 0, 0), (1, 2, 0), (2, 2, 1), (3, 3, 3))
    ]
    one = found([*ANSWERS, *matches], replace(STUDY, questions=("quality", "match")))
    shares = {name: share.value for name, share in one.matches.items()}
    assert shares == {"a": 0.5, "b": 1.0, PHOTOGRAPH: 1.0}


def test_the_report_says_what_was_found():
    text = report_text(STUDY, found())
    assert "| a | 1.38 |" in text
    assert "8 rankings of 6 captions by 2 raters" in text
    assert "0 were left out" in text
    assert "Kendall's W of 2 common captions 0.88" in text
    assert r"a & 1.38" in tables(found())


def test_the_command_s_report_is_written_and_can_be_written_again(tmp_path):
    write_study(tmp_path, STUDY, KEY)
    answers = Answers(sqlite_url(tmp_path), STUDY.id)
    rater, _ = answers.new_rater()
    for place, item in enumerate((0, 1, 2)):
        trial = Trial("quality", "plain", item, (0, 1, 2))
        answers.add(rater, place, trial, (2, 0, 1), 3000, "v")
    answers.close()
    for _ in range(2):
        screen = StringIO()
        with Display(Console(file=screen, width=200)) as display:
            report_study(tmp_path, None, display)
        assert "| c | 1.00 |" in screen.getvalue()
        names = {path.name for path in (tmp_path / "report").iterdir()}
        assert names == {"report.md", "report.tex", "report.json", "report.png", "answers.csv"}


def test_a_study_without_answers_has_no_report(tmp_path):
    write_study(tmp_path, STUDY, KEY)
    with Display(Console(file=StringIO())) as display, pytest.raises(UserError, match="no answers"):
        report_study(tmp_path, None, display)
