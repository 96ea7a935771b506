"""The page that draws captions, and its JSON API: an ASGI app in front of the replicas."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from ray.exceptions import RayError
from starlette.requests import Request

from sdn_ray.models.together import Drawing
from sdn_ray.serving.asking import Replicas, UnavailableError
from sdn_ray.serving.neighbours import Neighbours
from sdn_ray.serving.replicas import ServedModel
from sdn_ray.text.captions import LONGEST_CAPTION
from sdn_ray.web.pages import new_page

MOST_SAMPLES, MOST_STEPS = 16, 33  # of one request
STATIC = Path(__file__).parent / "static"

Caption = Annotated[str, Field(max_length=LONGEST_CAPTION, examples=["a red flower"])]
Seed = Annotated[int, Field(ge=0, lt=2**32, description="Of the noise, if the model takes some.")]


class _Wish(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    model: str | None = Field(None, description="Its name. Default: the first one.")
    seed: Seed = 0


class DrawWish(_Wish):
    """Samples of a caption."""

    caption: Caption
    samples: int = Field(1, ge=1, le=MOST_SAMPLES)


class InterpolateWish(_Wish):
    """The way from one caption to another."""

    first: Caption
    last: Caption
    steps: int = Field(9, ge=2, le=MOST_STEPS)


class NearestWish(_Wish):
    """The training images nearest to a sample of a caption."""

    caption: Caption
    sample: int = Field(0, ge=0, lt=MOST_SAMPLES)


class Pictures(BaseModel):
    """PNG files."""

    model: str
    images: list[str] = Field(description="Base64, in the order of samples or steps.")


class TrainingImage(BaseModel):
    """One that is near to a picture."""

    image: str = Field(description="PNG in base64, at the picture's size.")
    cosine: float = Field(description="Similarity by fc7 of a fine-tuned VGG.")
    caption: str


class NearestImages(BaseModel):
    """The most similar first."""

    model: str
    nearest: list[TrainingImage]


class AboutModel(BaseModel):
    """A model that draws."""

    name: str
    method: str
    image_size: int = Field(description="Height and width of its pictures in pixels.")
    takes_noise: bool = Field(description="Whether seeds change what it draws.")
    most_samples: int = Field(description="Of one request.")


class About(BaseModel):
    """What can be asked."""

    models: list[AboutModel]
    longest_caption: int
    most_steps: int
    nearest: bool = Field(description="Whether training images can be looked for.")


class Problem(BaseModel):
    """Why there is no answer, in a sentence."""

    error: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    422: {"model": Problem, "description": "Not as expected."},
    429: {"model": Problem, "description": "Too many requests."},
    503: {"model": Problem, "description": "Nobody draws now; try again."},
}


def draw_app(
    models: Sequence[ServedModel], replicas: Replicas, neighbours: Neighbours | None
) -> FastAPI:
    """The app.

    Args:
        models: the first one is drawn from where a request names none.
        replicas: of them.
        neighbours: None: training images cannot be looked for.
    """
    app = new_page("sdn_ray", STATIC, "draw.html", RayError)
    known = {one.name: one for one in models}

    def model_of(wish: _Wish) -> ServedModel:
        if wish.model is None:
            return models[0]
        if wish.model not in known:
            names = ", ".join(known)
            raise HTTPException(422, f"model: found {wish.model!r}, expected one of {names}")
        return known[wish.model]

    async def drawn(model: ServedModel, drawing: Drawing) -> list[bytes]:
        return await replicas.draw(model.name, drawing.checked(model))

    def pictures(model: ServedModel, images: Sequence[bytes]) -> Response:
        # By hand: most of an answer is base64, which needs no escapes that JSON would look for.
        listed = b", ".join(b'"%b"' % base64.b64encode(image) for image in images)
        name = json.dumps(model.name).encode()
        content = b'{"model": %b, "images": [%b]}' % (name, listed)
        return Response(content, media_type="application/json")

    @app.get("/api/models")
    def about() -> About:
        """What can be asked."""
        return About(
            models=[_about(one) for one in models],
            longest_caption=LONGEST_CAPTION,
            most_steps=MOST_STEPS,
            nearest=neighbours is not None,
        )

    @app.get("/health", responses={503: {"description": "Of some model no replica answers."}})
    async def health() -> JSONResponse:
        """Whether every model answers."""
        alive = await replicas.alive()
        status = {name: "ok" if one else "down" for name, one in alive.items()}
        return JSONResponse({"models": status}, 200 if all(alive.values()) else 503)

    @app.post("/api/draw", response_model=Pictures, responses=_PROBLEMS)
    async def draw(wish: DrawWish) -> Response:
        """Draw samples of a caption, as `sdn_ray.generate` with the same seed, up to rounding."""
        model = model_of(wish)
        return pictures(
            model, await drawn(model, Drawing((wish.caption,), wish.samples, wish.seed))
        )

    @app.post("/api/interpolate", response_model=Pictures, responses=_PROBLEMS)
    async def interpolate(wish: InterpolateWish) -> Response:
        """Draw the way from one caption to another (Figure 8 of the paper)."""
        model = model_of(wish)
        drawing = Drawing((wish.first, wish.last), wish.steps, wish.seed)
        return pictures(model, await drawn(model, drawing))

    @app.post("/api/nearest", response_model=NearestImages, responses=_PROBLEMS)
    async def nearest(wish: NearestWish) -> JSONResponse:
        """Training images like a drawn sample (Figure 7 of the paper)."""
        if neighbours is None:
            raise HTTPException(404, "this page was started without --reference, and has no index")
        model = model_of(wish)
        images = await drawn(model, Drawing((wish.caption,), wish.sample + 1, wish.seed))
        found = [
            {"image": _text(one.image), "cosine": one.cosine, "caption": one.caption}
            for one in await neighbours.of(images[wish.sample])
        ]
        return JSONResponse({"model": model.name, "nearest": found})

    async def unavailable(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 503, {"Retry-After": "2"})

    app.add_exception_handler(UnavailableError, unavailable)
    return app


def _about(model: ServedModel) -> AboutModel:
    most = MOST_SAMPLES if model.noise_dim else min(model.samples, MOST_SAMPLES)
    return AboutModel(
        name=model.name,
        method=model.method,
        image_size=model.image_size,
        takes_noise=model.noise_dim > 0,
        most_samples=most,
    )


def _text(image: bytes) -> str:
    return base64.b64encode(image).decode()
