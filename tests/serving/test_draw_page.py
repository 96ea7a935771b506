import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from ray.exceptions import RayError
from starlette.testclient import TestClient

from sdn_ray.models.export import load_model
from sdn_ray.models.together import draw_together
from sdn_ray.serving.asking import UnavailableError
from sdn_ray.serving.neighbours import Neighbour
from sdn_ray.serving.page import MOST_SAMPLES, STATIC, draw_app
from sdn_ray.serving.replicas import png, served_model
from sdn_ray.web.guard import Guard, Limits
from tests.serving.models import small_models

JSON = {"content-type": "application/json"}
CAPTION, OTHER = "a red flower", "a flower with many thin blue petals"


class Here:
    """In the place of replicas: models of this process."""

    def __init__(self, folders):
        self.models = {name: load_model(folder) for name, folder in folders.items()}
        self.down = set()

    async def draw(self, model, drawing):
        if model in self.down:
            raise UnavailableError(f"{model} is being started again; try again soon")
        return [png(image) for image in draw_together(self.models[model], [drawing])[0]]

    async def alive(self):
        return {name: name not in self.down for name in self.models}


class Looking:
    """In the place of an index: says which picture was given."""

    def __init__(self):
        self.given = []

    async def of(self, picture):
        self.given.append(pixels(picture))
        return [Neighbour(picture, 0.75, "<b>a photograph</b>")]


def pixels(image):
    return np.array(Image.open(io.BytesIO(image)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return small_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def here(folders):
    return Here(folders)


@pytest.fixture
def looking():
    return Looking()


@pytest.fixture
def client(folders, here, looking):
    models = [served_model(name, str(folder)) for name, folder in folders.items()]
    app = Guard(draw_app(models, here, looking), local=True, limits=Limits(burst=1000))
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


def drawn(answer):
    assert answer.status_code == 200, answer.text
    return np.stack([pixels(base64.b64decode(image)) for image in answer.json()["images"]])


def test_a_caption_is_drawn_as_generate_draws_it(client, here):
    answer = client.post("/api/draw", json={"caption": CAPTION, "samples": 3, "seed": 5})
    (expected,) = here.models["noisy"].draw([CAPTION], samples=3, seed=5)
    np.testing.assert_array_equal(drawn(answer), expected[0])
    assert answer.json()["model"] == "noisy"  # the first one, since none is named


def test_each_model_draws_what_it_can(client, here):
    answer = client.post("/api/draw", json={"model": "diverse", "caption": OTHER, "samples": 2})
    (expected,) = here.models["diverse"].draw([OTHER])
    np.testing.assert_array_equal(drawn(answer), expected[0])
    told = {model["name"]: model for model in client.get("/api/models").json()["models"]}
    assert told["diverse"] == {
        "name": "diverse",
        "method": "sdn",
        "image_size": 8,
        "takes_noise": False,
        "most_samples": 2,
    }
    assert told["noisy"]["takes_noise"]
    assert told["noisy"]["most_samples"] == MOST_SAMPLES


def test_the_way_between_two_captions_begins_and_ends_with_them(client):
    given = {"first": CAPTION, "last": OTHER, "steps": 5, "seed": 2}
    way = drawn(client.post("/api/interpolate", json=given))
    first, last = (
        drawn(client.post("/api/draw", json={"caption": text, "seed": 2}))[0]
        for text in (CAPTION, OTHER)
    )
    assert way.shape == (5, 8, 8, 3)
    assert np.abs(way[[0, -1]].astype(int) - np.stack([first, last])).max() <= 1
    assert (way[0] != way[2]).any()


def test_the_nearest_images_are_looked_for_beside_the_sample_that_was_drawn(client, looking):
    wish = {"caption": CAPTION, "seed": 1}
    answer = client.post("/api/nearest", json={**wish, "sample": 2})
    samples = drawn(client.post("/api/draw", json={**wish, "samples": 3}))
    np.testing.assert_array_equal(looking.given[0], samples[2])
    (found,) = answer.json()["nearest"]
    assert (found["cosine"], found["caption"]) == (0.75, "<b>a photograph</b>")


def test_without_an_index_nothing_is_looked_for(folders, here):
    app = draw_app([served_model("noisy", str(folders["noisy"]))], here, None)
    client = TestClient(app)
    assert client.get("/api/models").json()["nearest"] is False
    answer = client.post("/api/nearest", json={"caption": CAPTION})
    assert (answer.status_code, list(answer.json())) == (404, ["error"])


@pytest.mark.parametrize(
    ("path", "wish", "reason"),
    [
        ("draw", {"caption": "  "}, "captions: found an empty caption, expected some words"),
        ("draw", {"caption": "x" * 2001}, "caption: String should have at most 2000 characters"),
        ("draw", {"caption": "a\0b"}, "captions: found a zero byte"),
        ("draw", {"caption": "\ud800"}, ""),
        ("draw", {"caption": ["a"]}, "caption: "),
        ("draw", {"caption": 3}, "caption: "),
        ("draw", {}, "caption: Field required"),
        ("draw", {"caption": CAPTION, "samples": 0}, "samples: "),
        ("draw", {"caption": CAPTION, "samples": 17}, "samples: "),
        ("draw", {"caption": CAPTION, "samples": "1"}, "samples: "),
        ("draw", {"caption": CAPTION, "samples": 1e99}, "samples: "),
        ("draw", {"caption": CAPTION, "seed": -1}, "seed: "),
        ("draw", {"caption": CAPTION, "seed": 2**32}, "seed: "),
        ("draw", {"caption": CAPTION, "seed": 10**400}, "seed: "),
        ("draw", {"caption": CAPTION, "model": "../noisy"}, "model: found '../noisy', expected"),
        ("draw", {"caption": CAPTION, "model": "/etc/passwd"}, "model: "),
        ("draw", {"caption": CAPTION, "model": ""}, "model: "),
        ("draw", {"caption": CAPTION, "folder": "/"}, "folder: "),
        ("draw", {"caption": CAPTION, "model": "diverse", "samples": 3}, "samples: found 3"),
        ("draw", {"caption": CAPTION, "model": "diverse", "seed": 1}, "seed: found 1, but this"),
        ("interpolate", {"first": CAPTION, "last": " "}, "captions: "),
        ("interpolate", {"first": CAPTION}, "last: "),
        ("interpolate", {"first": CAPTION, "last": OTHER, "steps": 1}, "steps: "),
        ("interpolate", {"first": CAPTION, "last": OTHER, "steps": 34}, "steps: "),
        ("nearest", {"caption": CAPTION, "sample": 16}, "sample: "),
        ("nearest", {"caption": CAPTION, "sample": -1}, "sample: "),
        ("nearest", {"caption": CAPTION, "model": "diverse", "sample": 2}, "samples: found 3"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(client, path, wish, reason):
    # As ASCII: a lone surrogate is no UTF-8, but is JSON.
    answer = client.post(f"/api/{path}", content=json.dumps(wish).encode(), headers=JSON)
    assert answer.status_code == 422, answer.text
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].startswith(reason)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"caption": NaN}', b"[" * 9000]
)
def test_what_is_no_wish_is_refused_in_a_sentence(client, body):
    answer = client.post("/api/draw", content=body, headers=JSON)
    assert answer.status_code in (400, 422)
    assert list(answer.json()) == ["error"]


def test_a_body_that_is_too_long_is_not_read(client):
    answer = client.post("/api/draw", content=b" " * (17 << 10), headers=JSON)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/static/../page.py",
        "/static/..%2fpage.py",
        "/static/%2e%2e/page.py",
        "/static/....//page.py",
        "/static//etc/passwd",
        "/static/draw.html/../../page.py",
        "/../../etc/passwd",
        "/docs",
        "/redoc",
    ],
)
def test_no_path_leads_out_of_the_page_s_own_files(client, path):
    answer = client.get(path)
    assert answer.status_code in (404, 405)
    assert "import" not in answer.text


def test_a_model_that_does_not_answer_is_told_and_the_others_draw(client, here):
    assert client.get("/health").json() == {"models": {"noisy": "ok", "diverse": "ok"}}
    here.down.add("noisy")
    answer = client.post("/api/draw", json={"caption": CAPTION})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json() == {"error": "noisy is being started again; try again soon"}
    assert client.post("/api/draw", json={"caption": CAPTION, "model": "diverse"}).is_success
    health = client.get("/health")
    assert (health.status_code, health.json()["models"]["noisy"]) == (503, "down")


@pytest.mark.parametrize(("error", "status"), [(RayError("gone"), 503), (ValueError("x"), 500)])
def test_faults_are_sentences_too(client, here, error, status):
    async def broken(*given):
        raise error

    here.draw = broken
    answer = client.post("/api/draw", json={"caption": CAPTION})
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert str(error) not in answer.text


def test_too_many_requests_are_refused(folders, here):
    models = [served_model("noisy", str(folders["noisy"]))]
    limits = Limits(rate=0.001, burst=3)
    client = TestClient(
        Guard(draw_app(models, here, None), local=True, limits=limits), base_url="http://localhost"
    )
    answers = [client.post("/api/draw", json={"caption": CAPTION}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]


def test_openapi_tells_the_api(client):
    told = client.get("/openapi.json").json()
    assert set(told["paths"]) == {
        "/api/models",
        "/api/draw",
        "/api/interpolate",
        "/api/nearest",
        "/health",
    }
    for path in ("/api/draw", "/api/interpolate", "/api/nearest"):
        answers = told["paths"][path]["post"]["responses"]
        assert {"200", "422", "429", "503"} <= set(answers)
        assert answers["422"]["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")
    caption = told["components"]["schemas"]["DrawWish"]["properties"]["caption"]
    assert caption["maxLength"] == 2000


def test_the_page_asks_no_other_host(client):
    assert "Draw a caption" in client.get("/").text
    for file in STATIC.iterdir():
        assert client.get(f"/static/{file.name}").is_success
        assert not re.search(r"(https?:)?//[a-z]", file.read_text().replace("// ", ""))
