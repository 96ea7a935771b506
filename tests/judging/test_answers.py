import subprocess
import sys
import threading

import pytest

from sdn_ray.errors import UserError
from sdn_ray.judging.answers import AnsweredError, Answers, sqlite_url
from sdn_ray.judging.trials import Trial

TRIAL = Trial("quality", "plain", 3, (2, 0, 1))


@pytest.fixture
def answers(tmp_path):
    found = Answers(sqlite_url(tmp_path), "s")
    yield found
    found.close()


def test_an_answer_is_read_with_all_that_was_shown(answers):
    rater, _ = answers.new_rater()
    answers.add(rater, 0, TRIAL, (0, 1, 2), 2500, "v")
    (found,) = answers.all()
    assert (found.slot, found.trial, found.question, found.kind) == (0, 0, "quality", "plain")
    assert (found.item, found.shown, found.answer) == (3, (2, 0, 1), (0, 1, 2))
    assert (found.milliseconds, found.page, found.picture) == (2500, "v", None)


def test_raters_are_numbered_and_known_by_their_secrets(answers):
    known = [answers.new_rater() for _ in range(3)]
    assert [rater.slot for rater, _ in known] == [0, 1, 2]
    for rater, secret in known:
        assert answers.rater(secret) == rater
    assert answers.rater("forged") is None


def test_no_secret_is_in_the_database(answers, tmp_path):
    _, secret = answers.new_rater()
    assert secret.encode() not in (tmp_path / "answers.db").read_bytes()


def test_a_trial_is_answered_once_and_in_its_turn(answers):
    rater, _ = answers.new_rater()
    answers.add(rater, 0, TRIAL, (0, 1, 2), 1, "v")
    for place in (0, 2):
        with pytest.raises(AnsweredError):
            answers.add(rater, place, TRIAL, (1, 0, 2), 1, "v")
    assert [one.answer for one in answers.all()] == [(0, 1, 2)]


def test_two_studies_share_a_database_and_not_their_raters(tmp_path):
    one, two = (Answers(sqlite_url(tmp_path), name) for name in "ab")
    (first, secret), (second, _) = one.new_rater(), two.new_rater()
    assert first.slot == second.slot == 0
    assert two.rater(secret) is None
    one.add(first, 0, TRIAL, (0, 1, 2), 1, "v")
    assert (len(one.all()), len(two.all())) == (1, 0)
    one.close()
    two.close()


def test_raters_who_begin_at_once_get_numbers_of_their_own(answers):
    slots = []

    def begin():
        slots.append(answers.new_rater()[0].slot)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slots) == list(range(8))


def test_an_answer_is_there_after_the_process_is_killed(tmp_path):
    program = f"""
import os, signal
from sdn_ray.judging.answers import Answers, sqlite_url
from sdn_ray.judging.trials import Trial
from pathlib import Path
answers = Answers(sqlite_url(Path({str(tmp_path)!r})), "s")
rater, _ = answers.new_rater()
answers.add(rater, 0, Trial("quality", "plain", 3, (2, 0, 1)), (0, 1, 2), 7, "v")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    again = Answers(sqlite_url(tmp_path), "s")
    assert [one.milliseconds for one in again.all()] == [7]
    again.close()


def test_a_spoiled_database_is_told(tmp_path):
    answers = Answers(sqlite_url(tmp_path), "s")
    rater, _ = answers.new_rater()
    answers.add(rater, 0, TRIAL, (0, 1, 2), 1, "v")
    with answers._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE answers SET shown = 'nonsense'")
    with pytest.raises(UserError, match="--database: the answers cannot be read"):
        answers.all()
    answers.close()


@pytest.mark.parametrize(
    "url",
    ["nonsense", "nodb:///x", "sqlite:////nowhere/at/all.db", "postgresql://u:secret@localhost/x"],
)
def test_a_database_that_cannot_be_used_is_told_without_its_password(url):
    with pytest.raises(UserError, match="--database: ") as found:
        Answers(url, "s")
    assert "secret" not in str(found.value)
