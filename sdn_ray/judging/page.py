"""The page of a study: an ASGI app that asks, shows and keeps."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError

from sdn_ray.judging.answers import AnsweredError, Answers, Rater
from sdn_ray.judging.study import IMAGES, QUESTIONS, Study
from sdn_ray.judging.trials import Trial, rater_trials
from sdn_ray.web.pages import new_page

_STATIC = Path(__file__).parent / "static"
_LONGEST_TRIAL = 7 * 24 * 3600 * 1000  # milliseconds that a page may have stood open


class NewRater(BaseModel):
    """A rater's own secret, kept by the browser before it is sent: asked twice is one rater."""

    model_config = ConfigDict(extra="forbid", strict=True)
    secret: str = Field(pattern="^[0-9a-f]{64}$")


class Reply(BaseModel):
    """A rater's answer to their next trial."""

    model_config = ConfigDict(extra="forbid", strict=True)
    trial: int = Field(ge=0)
    choice: list[int] = Field(min_length=1, max_length=9)  # places as shown, the best first
    milliseconds: int = Field(ge=0, le=_LONGEST_TRIAL)


@dataclass(frozen=True, eq=False)  # known by itself: a study takes long to compare
class _Asker:
    """What the routes share."""

    study: Study
    answers: Answers
    version: str  # of the page's own files

    @lru_cache(maxsize=1024)  # noqa: B019, one asker lives as long as the process
    def trials(self, slot: int) -> tuple[Trial, ...]:
        """Of a rater."""
        return rater_trials(self.study, slot)

    def next_trial(self, rater: Rater) -> dict[str, Any]:
        """What the page shows next, and how much is left."""
        trials, done = self.trials(rater.slot), self.answers.answered(rater)
        if done >= len(trials):
            return {"done": True, "trials": len(trials)}
        trial = trials[done]
        shown = {
            "done": False,
            "trial": done,
            "trials": len(trials),
            "question": trial.question,
            "text": QUESTIONS[trial.question],
        }
        return shown | self._shown(trial)

    def _shown(self, trial: Trial) -> dict[str, Any]:
        if trial.question == "match":
            caption = self.study.captions[trial.item]
            assert trial.column is not None
            picture = (*caption.images, caption.real)[trial.column]
            sentences = [self.study.captions[one].text for one in trial.order]
            return {"images": [picture], "sentences": sentences}
        item = (self.study.gold if trial.kind == "gold" else self.study.captions)[trial.item]
        caption_shown = item.text if trial.question == "correlation" else None
        return {"images": [item.images[column] for column in trial.order], "caption": caption_shown}

    def keep(self, rater: Rater, reply: Reply) -> None:
        """Keep an answer.

        Raises:
            HTTPException: it answers another trial than the next, or is none of its answers.
        """
        trials, done = self.trials(rater.slot), self.answers.answered(rater)
        if reply.trial != done or done >= len(trials):
            raise HTTPException(409, f"trial {reply.trial} is not the next one, which is {done}")
        trial = trials[done]
        places = list(range(len(trial.order)))
        if trial.question == "match":
            if len(reply.choice) != 1 or reply.choice[0] not in places:
                raise HTTPException(422, "choice: expected the place of one sentence")
        elif sorted(reply.choice) != places:
            raise HTTPException(422, f"choice: expected each of the places 0 to {places[-1]} once")
        said = [trial.order[place] for place in reply.choice]
        try:
            self.answers.add(rater, done, trial, said, reply.milliseconds, self.version)
        except AnsweredError:
            raise HTTPException(409, f"trial {done} has an answer already") from None


def study_app(folder: Path, study: Study, answers: Answers) -> FastAPI:
    """The page of a study.

    Args:
        folder: of the study; of it images alone are served.
        study: read from it.
        answers: where they are kept.
    """
    app = new_page("study", _STATIC, "study.html", SQLAlchemyError, OSError)
    asker = _Asker(study, answers, page_version())
    pictures = {one.real for one in study.captions if one.real}
    for images in (*(c.images for c in study.captions), *(g.images for g in study.gold)):
        pictures.update(images)

    def known_rater(authorization: Annotated[str, Header()] = "") -> Rater:
        kind, _, secret = authorization.partition(" ")
        rater = answers.rater(secret) if kind == "Bearer" and len(secret) < 200 else None
        if rater is None:
            raise HTTPException(401, "no such rater; open the first page again")
        return rater

    known = Annotated[Rater, Depends(known_rater)]

    @app.get("/api/study")
    def about() -> dict[str, Any]:
        """What is asked."""
        return {"study": study.id, "questions": [QUESTIONS[one] for one in study.questions]}

    @app.get("/health")
    def health() -> dict[str, str]:
        """Whether the page is up."""
        return {"status": "ok"}

    @app.post("/api/raters", status_code=201)
    def begin(rater: NewRater) -> dict[str, str]:
        """Take part: the secret names the rater from now on."""
        return {"rater": answers.new_rater(rater.secret)[1]}

    @app.get("/api/trial")
    def trial(rater: known) -> dict[str, Any]:
        """The rater's next trial."""
        return asker.next_trial(rater)

    @app.post("/api/answers")
    def answer(rater: known, reply: Reply) -> dict[str, Any]:
        """Keep an answer; the next trial."""
        asker.keep(rater, reply)
        return asker.next_trial(rater)

    @app.get("/images/{name}", include_in_schema=False)
    def image(name: str) -> Response:
        if name not in pictures:  # of the study's own list: no path leads elsewhere
            raise HTTPException(404, "no such picture")
        # Not as a file, whose time would tell in which order the pictures were made.
        content = (folder / IMAGES / name).read_bytes()
        return Response(content, media_type="image/png", headers={"Cache-Control": "max-age=86400"})

    return app


def page_version() -> str:
    """A hash of the page's own files: what the raters saw."""
    files = sorted(_STATIC.iterdir())
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
