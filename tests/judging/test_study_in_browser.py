import pytest

from sdn_ray.judging.answers import Answers, sqlite_url
from sdn_ray.judging.report import report_study
from sdn_ray.judging.study import read_key
from sdn_ray.judging.trials import passed, rater_trials
from sdn_ray.runs.terminal import Display
from tests.judging.browser import (
    SLOW_CLOCK,
    Server,
    all_settled,
    names_of,
)
from tests.judging.studies import small_study
from tests.web.chromium import chromium, needs_browser

PREFERRED = ("sdn", "stackgan", "gan-int-cls")  # by the raters of these tests, best first


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return small_study(folder, captions=12, common=12, raters=3, raters_per_caption=3)


def wishes(made):
    """Of every picture's file how much it is liked; photographs most, scrambled ones least."""
    liked = {name: place for place, name in enumerate(reversed(PREFERRED))}
    methods = read_key(made.folder, made.study).methods
    found = {}
    for item in (*made.study.captions, *made.study.gold):
        found |= {name: liked[methods[c]] for c, name in enumerate(item.images)}
    for gold in made.study.gold:
        found[gold.images[gold.column]] = 9 if gold.place == "first" else -9
    return found


def best_first(page, liked):
    names = names_of(page)
    return sorted(range(len(names)), key=lambda place: -liked[names[place]])


def by_keyboard(page, places):
    for place in places:
        page.keyboard.press(str(place + 1))
    page.keyboard.press("Enter")


def by_mouse(page, places):
    for place in places:
        page.locator(".picture").nth(place).click()
    page.get_by_role("button", name="Next").click()


def begin(browser, server, **options):
    page = browser.new_context(**options).new_page()
    page.add_init_script(SLOW_CLOCK)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(server.url)
    page.get_by_role("button", name="Begin").click()
    all_settled(page, 0)
    return page, requests


@needs_browser
def test_three_raters_judge_a_study_through_the_page(made, tmp_path):
    liked, trials = wishes(made), len(rater_trials(made.study, 0))
    with Server(made.folder) as server, chromium() as browser:
        careful, requests = begin(browser, server)
        for number in range(trials):
            by_keyboard(careful, best_first(careful, liked))
            all_settled(careful, number + 1)
        careful.get_by_text("That was all").wait_for()
        assert all(url.startswith((server.url, "data:")) for url in requests)

        interrupted, _ = begin(browser, server, viewport={"width": 390, "height": 844})
        for number in range(trials):
            if number == 3:  # in the middle of a trial: two pictures are chosen
                for place in best_first(interrupted, liked)[:-1]:
                    interrupted.locator(".picture").nth(place).click()
                server.kill()
                interrupted.locator(".picture").nth(best_first(interrupted, liked)[-1]).click()
                interrupted.get_by_role("button", name="Next").click()
                interrupted.get_by_text("No connection").wait_for()
                server.start()
            elif number == 5:  # the browser was closed, and the page is opened again
                interrupted.reload()
                interrupted.get_by_role("button", name="Go on").click()
                all_settled(interrupted, 5)
                by_mouse(interrupted, best_first(interrupted, liked))
            else:
                by_mouse(interrupted, best_first(interrupted, liked))
            all_settled(interrupted, number + 1)

        careless, _ = begin(browser, server)
        for number in range(trials):
            by_keyboard(careless, best_first(careless, liked)[::-1])
            all_settled(careless, number + 1)
        assert server.stop() == 0

    answers = Answers(sqlite_url(made.folder), made.study.id)
    kept = answers.all()
    answers.close()
    assert [(one.slot, one.trial) for one in kept] == [
        (slot, trial) for slot in range(3) for trial in range(trials)
    ]
    methods = read_key(made.folder, made.study).methods
    for one in kept:
        if one.kind == "gold":
            good = passed(made.study.gold[one.item], one.answer)
            assert good or one.slot == 2
        elif one.slot < 2:
            assert tuple(methods[column] for column in one.answer) == PREFERRED
        assert one.milliseconds == 3000

    with Display() as display:
        found = report_study(made.folder, None, display)
    assert (found.raters, found.finished) == (3, 3)
    (reason,) = found.excluded.items()
    assert reason[0] == 2
    assert "gold trials, below 80%" in reason[1][0]
    for question in found.questions:
        means = {row.method: row.mean for row in question.comparison.methods}
        assert means == {name: place for place, name in enumerate(PREFERRED, 1)}
        assert question.concordance.mean == pytest.approx(1)
        assert question.rankings == 24


@needs_browser
def test_pictures_are_taken_back_by_a_click_or_a_key(made):
    with Server(made.folder) as server, chromium() as browser:
        page, _ = begin(browser, server)
        following = page.get_by_role("button", name="Next")
        page.keyboard.press("2")
        page.keyboard.press("1")
        assert page.locator(".rank").all_inner_texts() == ["2nd", "1st"]
        page.keyboard.press("Enter")  # not all are in order: nothing is sent
        assert following.is_disabled()
        page.locator(".picture").nth(1).click()
        assert page.locator(".rank").all_inner_texts() == ["1st"]
        page.keyboard.press("Backspace")
        assert page.locator(".rank").count() == 0
        for key in "312":
            page.keyboard.press(key)
        assert page.locator(".rank").all_inner_texts() == ["2nd", "3rd", "1st"]
        following.click()
        all_settled(page, 1)


@needs_browser
def test_a_caption_is_shown_as_text_whatever_is_in_it(tmp_path):
    made = small_study(
        tmp_path, captions=4, common=4, raters=1, raters_per_caption=1, questions=("correlation",)
    )
    with Server(made.folder) as server, chromium() as browser:
        page, _ = begin(browser, server)
        assert page.locator("#caption").inner_text().startswith("flower <b>")
        assert page.locator("#caption b").count() == 0


@needs_browser
def test_no_trial_begins_before_all_its_pictures_are_there(made):
    failed = []

    def fail_once(route):
        if not failed:
            failed.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    with Server(made.folder) as server, chromium() as browser:
        page = browser.new_page()
        page.route("**/images/*", fail_once)
        page.goto(server.url)
        page.get_by_role("button", name="Begin").click()
        page.get_by_text("A picture did not arrive").wait_for()
        page.keyboard.press("1")
        assert page.locator(".rank").count() == 0
        all_settled(page, 0)
        page.keyboard.press("1")
        assert page.locator(".rank").count() == 1
    assert failed
