import base64
import io
import json
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import psutil
import pytest
from PIL import Image

from sdn_ray.models.export import load_model
from tests.serving.models import Server, small_models
from tests.web.chromium import chromium, needs_browser

CAPTION, OTHER = "a flower of <b>many</b> thin petals", "a red one"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return small_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(folders):
    with Server(folders, "--replicas", "1", "--requests_per_second", "1000") as server:
        yield server
        started = psutil.Process(server.process.pid).children(recursive=True)
        assert started  # its own Ray's
        assert server.stop(signal.SIGTERM) == 0
        assert psutil.wait_procs(started, timeout=20)[1] == []


def settled(page):
    page.wait_for_function(
        "() => document.getElementById('results').getAttribute('aria-busy') === 'false'"
    )


def opened(browser, server, **options):
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(90_000)  # others of these tests take the cores, too
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(server.url)
    page.wait_for_function("() => !document.getElementById('draw').disabled")
    return page, requests


def shown(page, model):
    """The pictures of a model's card."""
    sources = page.eval_on_selector_all(
        f".model:has(h2:text-is('{model}')) img", "all => all.map(one => one.src)"
    )
    return [pixels(source) for source in sources]


def pixels(source):
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    return np.array(Image.open(io.BytesIO(data)))


def near(found, expected):
    """Up to the rounding of another batch and of folded layers."""
    return np.abs(np.stack(found).astype(int) - np.stack(expected)).max() <= 1


def replica_of(server):
    """The process that draws with the first model."""
    started = psutil.Process(server.process.pid).children(recursive=True)
    (replica,) = (one for one in started if re.search(r"-0:Drawer", one.name()))
    return replica


def get(server, path, body=None):
    request = Request(server.url + path, body, {"content-type": "application/json"})
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def post(server, path, **wish):
    return get(server, path, json.dumps(wish).encode())


@needs_browser
def test_a_caption_is_drawn_by_two_models_side_by_side(server, folders):
    with chromium() as browser:
        page, requests = opened(browser, server)
        page.keyboard.type(CAPTION)  # over the example, which is selected
        page.locator("#seed").fill("7")
        page.keyboard.press("Enter")
        settled(page)
        (noisy,) = load_model(folders["noisy"]).draw([CAPTION], samples=4, seed=7)
        (diverse,) = load_model(folders["diverse"]).draw([CAPTION])
        assert near(shown(page, "noisy"), noisy[0])
        assert near(shown(page, "diverse"), diverse[0])
        left, right = (page.locator(".model").nth(place).bounding_box() for place in (0, 1))
        assert left["y"] == right["y"]
        assert left["x"] + left["width"] < right["x"]
        assert page.locator("#results b").count() == page.locator("#history b").count() == 0

        page.locator("#dice").click()  # another seed draws at once
        settled(page)
        assert not near(shown(page, "noisy"), noisy[0])
        assert near(shown(page, "diverse"), diverse[0])

        # What was drawn before is kept by the browser.
        page.reload()
        page.wait_for_function("() => !document.getElementById('draw').disabled")
        page.locator("#history button", has_text="seed 7").focus()
        page.keyboard.press("Enter")
        settled(page)
        assert near(shown(page, "noisy"), noisy[0])
        page.wait_for_function(
            "() => document.activeElement === document.querySelector('#history button')"
        )
        page.get_by_role("button", name="Forget all").click()
        assert page.locator("#past").is_hidden()
        assert all(url.startswith((server.url, "data:")) for url in requests)


@needs_browser
def test_the_slider_goes_from_one_caption_to_the_other_by_keyboard_on_a_telephone(server, folders):
    with chromium() as browser:
        page, requests = opened(browser, server, viewport={"width": 390, "height": 844})
        page.locator("#caption").fill(CAPTION)
        page.locator("#between").focus()
        page.keyboard.press("Space")
        page.locator("#last").fill(OTHER)
        page.keyboard.press("Enter")
        settled(page)
        asked = len(requests)
        model = load_model(folders["noisy"])
        ends = [model.draw([text], samples=1) for text in (CAPTION, OTHER)]
        (first,), (last,) = (next(end)[0] for end in ends)
        assert near(shown(page, "noisy"), [first])
        page.locator("#slider").focus()
        page.keyboard.press("End")
        assert near(shown(page, "noisy"), [last])
        page.keyboard.press("ArrowLeft")
        assert page.locator("#slider").get_attribute("aria-valuetext") == "94 %"
        assert len([url for url in requests[asked:] if not url.startswith("data:")]) == 0
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390


@needs_browser
def test_a_picture_is_enlarged_and_saved(server, tmp_path):
    with chromium() as browser:
        page, _ = opened(browser, server)
        page.locator("#caption").fill(OTHER)
        page.keyboard.press("Enter")
        settled(page)
        expected = shown(page, "noisy")[1]
        page.locator(".pictures button").nth(1).click()
        assert page.locator("#look").is_hidden()  # there is no index
        with page.expect_download() as download:
            page.get_by_role("link", name="Save").click()
        assert download.value.suggested_filename == "noisy-a-red-one-picture-2.png"
        download.value.save_as(tmp_path / "saved.png")
        np.testing.assert_array_equal(np.array(Image.open(tmp_path / "saved.png")), expected)
        page.keyboard.press("Escape")
        assert page.locator("#picture").is_hidden()


@needs_browser
def test_an_error_is_a_sentence_beside_what_the_others_draw(server):
    with chromium() as browser:
        page, _ = opened(browser, server)

        def down(route):
            if route.request.post_data_json["model"] == "noisy":
                return route.fulfill(status=503, json={"error": "noisy is <b>away</b>."})
            return route.continue_()

        page.route("**/api/draw", down)
        page.keyboard.press("Enter")
        settled(page)
        assert page.locator(".problem").inner_text() == "noisy is <b>away</b>."
        assert page.locator("#status").inner_text() == "1 of 2 models did not draw."
        assert len(shown(page, "diverse")) == 2


def test_a_replica_that_is_killed_under_load_costs_no_more_than_what_it_held(server):
    """Whoever asks for its health meanwhile is told so, until it is back."""
    killed, health = [], []
    end = time.monotonic() + 180

    def client(_):
        """Ask until somebody has drawn again."""
        answers, again = [], 0
        while again < 3 and time.monotonic() < end:
            asked = time.monotonic()
            answers.append(post(server, "api/draw", caption=OTHER, model="noisy")[0])
            again += bool(killed) and asked > killed[0] and answers[-1] == 200
        return answers

    def kill():
        time.sleep(2)
        replica_of(server).kill()
        killed.append(time.monotonic())

    def watch():
        while health[-2:] != [503, 200] and time.monotonic() < end:
            status, answer = get(server, "health")
            if [status] != health[-1:]:
                health.append(status)
                noisy = "down" if status == 503 else "ok"
                assert answer["models"] == {"noisy": noisy, "diverse": "ok"}
            time.sleep(0.3)

    with ThreadPoolExecutor(6) as pool:
        watching = pool.submit(watch)
        answers = [pool.submit(client, number) for number in range(4)]
        pool.submit(kill).result()
        answers = [status for one in answers for status in one.result()]
        watching.result()
    assert set(answers) <= {200, 503}
    assert answers.count(503) <= 4  # of each client the one that it waited for
    assert health == [200, 503, 200]
    assert post(server, "api/draw", caption=OTHER, model="noisy")[0] == 200
