from secrets import token_hex

import pytest
from starlette.testclient import TestClient

from sdn_ray.judging.answers import Answers, sqlite_url
from sdn_ray.judging.page import study_app
from sdn_ray.judging.trials import rater_trials
from sdn_ray.web.guard import Guard
from tests.judging.studies import METHODS, small_study


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    questions = ("quality", "correlation", "match")
    return small_study(tmp_path_factory.mktemp("study"), questions=questions)


@pytest.fixture
def answers(tmp_path):
    found = Answers(sqlite_url(tmp_path), "s")
    yield found
    found.close()


@pytest.fixture
def client(made, answers):
    app = Guard(study_app(made.folder, made.study, answers), local=True)
    return TestClient(app, base_url="http://localhost")


def begin(client):
    secret = client.post("/api/raters", json={"secret": token_hex(32)}).json()["rater"]
    return {"Authorization": f"Bearer {secret}"}


def reply(trial, **changes):
    places = [0] if "sentences" in trial else list(range(len(trial["images"])))
    return {"trial": trial["trial"], "choice": places, "milliseconds": 2000} | changes


def finish(client, rater):
    """Answer everything; all that was shown."""
    shown, trial = [], client.get("/api/trial", headers=rater).json()
    while not trial["done"]:
        shown.append(trial)
        answer = client.post("/api/answers", json=reply(trial), headers=rater)
        assert answer.status_code == 200
        trial = answer.json()
    return shown


def test_a_rater_is_asked_all_trials_and_every_answer_is_kept(client, made, answers):
    shown = finish(client, begin(client))
    trials = rater_trials(made.study, 0)
    assert len(shown) == len(trials) == shown[0]["trials"]
    kept = answers.all()
    assert [(one.question, one.kind, one.item) for one in kept] == [
        (trial.question, trial.kind, trial.item) for trial in trials
    ]
    for one, trial in zip(kept, trials, strict=True):
        # The places were chosen from left to right: the columns as they were shown.
        assert one.answer == (trial.order[:1] if one.question == "match" else trial.order)


def test_what_is_shown_is_the_trial_s_and_no_more(client, made):
    rater = begin(client)
    for trial, shown in zip(rater_trials(made.study, 0), finish(client, rater), strict=True):
        if trial.question == "match":
            caption = made.study.captions[trial.item]
            assert shown["images"] == [(*caption.images, caption.real)[trial.column]]
            assert shown["sentences"] == [made.study.captions[c].text for c in trial.order]
            continue
        item = (made.study.gold if trial.kind == "gold" else made.study.captions)[trial.item]
        assert shown["images"] == [item.images[column] for column in trial.order]
        # Quality is judged without the sentence.
        assert shown["caption"] == (item.text if trial.question == "correlation" else None)
        assert "kind" not in shown


def test_no_answer_of_the_page_names_a_method(client, made):
    rater = begin(client)
    pages = ["/", "/static/study.js", "/static/study.css", "/api/study", "/openapi.json"]
    texts = [client.get(page).text for page in pages]
    texts += [client.get("/api/trial", headers=rater).text]
    headers = [str(client.get(page).headers) for page in pages]
    assert not any(name in text for name in METHODS for text in texts + headers)


def test_a_rater_goes_on_where_they_were_on_a_new_server(made, answers):
    first = TestClient(study_app(made.folder, made.study, answers))
    rater = begin(first)
    trial = first.get("/api/trial", headers=rater).json()
    following = first.post("/api/answers", json=reply(trial), headers=rater).json()
    second = TestClient(study_app(made.folder, made.study, answers))
    assert second.get("/api/trial", headers=rater).json() == following
    assert following["trial"] == 1


def test_a_second_answer_to_a_trial_is_refused_and_the_first_stays(client, answers):
    rater = begin(client)
    trial = client.get("/api/trial", headers=rater).json()
    client.post("/api/answers", json=reply(trial), headers=rater)
    again = client.post("/api/answers", json=reply(trial, choice=[2, 1, 0]), headers=rater)
    assert again.status_code == 409
    assert again.json()["error"] == "trial 0 is not the next one, which is 1"
    assert len(answers.all()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"choice": [0, 1]},
        {"choice": [0, 1, 1]},
        {"choice": [0, 1, 3]},
        {"choice": []},
        {"choice": [-1, 0, 1]},
        {"choice": ["0", "1", "2"]},
        {"choice": "012"},
        {"milliseconds": -1},
        {"milliseconds": 1e99},
        {"trial": -1},
        {"trial": "0"},
        {"rater": "other"},
        {"kind": "gold"},
    ],
)
def test_what_is_no_answer_is_refused_in_a_sentence(client, answers, changes):
    rater = begin(client)
    trial = client.get("/api/trial", headers=rater).json()
    answer = client.post("/api/answers", json=reply(trial) | changes, headers=rater)
    assert answer.status_code == 422
    assert list(answer.json()) == ["error"]
    assert answers.all() == []


@pytest.mark.parametrize(
    "header",
    ["", "Bearer ", "Bearer forged", "Basic x", "Bearer " + "x" * 5000, "Bearer ' OR 1=1 --"],
)
def test_a_forged_rater_sees_and_answers_nothing(client, answers, header):
    begin(client)
    headers = {"Authorization": header}
    assert client.get("/api/trial", headers=headers).status_code == 401
    body = {"trial": 0, "choice": [0, 1, 2], "milliseconds": 1}
    assert client.post("/api/answers", json=body, headers=headers).status_code == 401
    assert answers.all() == []


@pytest.mark.parametrize(
    "path",
    [
        "/images/../key.json",
        "/images/..%2fkey.json",
        "/images/%2e%2e%2fkey.json",
        "/images/....//key.json",
        "/images//etc/passwd",
        "/images/%2fetc%2fpasswd",
        "/images/key.json",
        "/images/" + "0" * 32 + ".png",
        "/images/\0",
        "/static/../page.py",
        "/static/%2e%2e/page.py",
        "/static/..%2f..%2fstudy.py",
        "/static//etc/passwd",
        "/key.json",
        "/study.json",
        "/answers.db",
    ],
)
def test_no_path_leads_out_of_the_pictures(client, path):
    answer = client.get(path.replace("\0", "%00"))
    assert answer.status_code in (404, 405)
    assert b"secret" not in answer.content
    assert b"root:" not in answer.content


def test_a_study_with_paths_for_pictures_serves_none_of_them(made, answers, tmp_path):
    from dataclasses import replace

    (tmp_path / "images").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    first = made.study.captions[0]
    bad = replace(first, images=("../secret.txt", *first.images[1:]))
    study = replace(made.study, captions=(bad, *made.study.captions[1:]))
    client = TestClient(study_app(tmp_path, study, answers))
    for path in ("/images/../secret.txt", "/images/..%2fsecret.txt"):
        assert client.get(path).status_code == 404


def test_pictures_are_served_and_kept_by_the_browser(client, made):
    answer = client.get(f"/images/{made.study.captions[0].images[0]}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert "max-age" in answer.headers["cache-control"]
    # When a file was made would tell which method's it is.
    assert {"etag", "last-modified"}.isdisjoint(answer.headers)


def test_a_rater_who_begins_twice_is_one(client, answers):
    secret = token_hex(32)
    for _ in range(2):
        answer = client.post("/api/raters", json={"secret": secret})
        assert (answer.status_code, answer.json()) == (201, {"rater": secret})
    assert answers.rater(secret).slot == 0
    assert answers.new_rater()[0].slot == 1


@pytest.mark.parametrize("secret", ["", "short", "x" * 64, "0" * 63, 5, None])
def test_a_secret_that_could_be_guessed_makes_no_rater(client, secret):
    assert client.post("/api/raters", json={"secret": secret}).status_code == 422


def test_what_is_not_there_is_told_as_everything_else_is(client):
    assert client.get("/nowhere").json() == {"error": "Not Found"}


def test_the_page_and_its_script_ask_no_other_host(client):
    for path in ("/", "/static/study.js", "/static/study.css"):
        text = client.get(path).text
        assert "http:" not in text
        assert "https:" not in text
        assert "innerHTML" not in text


def test_an_answer_that_cannot_be_kept_is_told_to_be_sent_again(made, tmp_path):
    answers = Answers(sqlite_url(tmp_path), "s")
    client = TestClient(study_app(made.folder, made.study, answers))
    rater = begin(client)
    trial = client.get("/api/trial", headers=rater).json()
    with answers._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE answers")
    answer = client.post("/api/answers", json=reply(trial), headers=rater)
    assert (answer.status_code, list(answer.json())) == (503, ["error"])
    answers.close()
