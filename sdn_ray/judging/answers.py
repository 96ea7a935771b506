"""Answers in a database, each durable before the rater sees the next trial."""

import hashlib
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    func,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from sdn_ray.errors import UserError, one_line
from sdn_ray.judging.trials import Trial

DATABASE = "answers.db"
_TRIES = 20  # to be the next rater, beside others who begin in the same moment

_metadata = MetaData()
_raters = Table(
    "raters",
    _metadata,
    Column("id", String(32), primary_key=True),
    Column("study", String(64), nullable=False),
    Column("slot", Integer, nullable=False),
    Column("secret", String(64), nullable=False, unique=True),  # a hash: a copy lets nobody answer
    Column("began", String(32), nullable=False),
    UniqueConstraint("study", "slot"),
)
_answers = Table(
    "answers",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("rater", String(32), ForeignKey("raters.id"), nullable=False),
    Column("trial", Integer, nullable=False),
    Column("question", String(16), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("item", Integer, nullable=False),
    Column("shown", JSON, nullable=False),
    Column("picture", Integer),  # of a match: whose
    Column("answer", JSON, nullable=False),
    Column("milliseconds", Integer, nullable=False),
    Column("page", String(32), nullable=False),
    Column("answered", String(32), nullable=False),
    UniqueConstraint("rater", "trial"),
)


class AnsweredError(Exception):
    """The trial has an answer, or is not the next one."""


@dataclass(frozen=True)
class Rater:
    """Someone who takes part."""

    id: str
    slot: int  # which trials are theirs


@dataclass(frozen=True)
class Answer:
    """What a rater said, with all that was shown."""

    slot: int
    trial: int  # place among the rater's
    question: str
    kind: str  # plain, gold or repeat
    item: int  # of the study's captions, or its gold
    shown: tuple[int, ...]  # columns from left to right, or captions from top to bottom
    answer: tuple[int, ...]  # columns from the best to the worst, or the caption
    picture: int | None
    milliseconds: int
    page: str  # version of the page
    answered: str  # UTC


class Answers:
    """The database of a study.

    Args:
        url: of SQLAlchemy; `sqlite_url` gives that of the study's own file.
        study: what tells this study from others in the same database.

    Raises:
        UserError: it is no such URL, or the database cannot be reached.
    """

    def __init__(self, url: str, study: str) -> None:
        self._study = study
        try:
            self._engine: Engine = create_engine(url)
            _metadata.create_all(self._engine)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, SQLAlchemyError) as error:
            raise UserError(
                f"--database: {_without_password(url)} cannot be used "
                f"({one_line(error, 200)}); expected a URL of SQLAlchemy such as "
                "sqlite:////path/answers.db"
            ) from error

    def new_rater(self, secret: str | None = None) -> tuple[Rater, str]:
        """The next rater, and the secret by which they are known from then on.

        Args:
            secret: of the rater's own making; whoever has it already is no new rater. None: a new
                one.
        """
        secret = secret or secrets.token_urlsafe(32)
        for _ in range(_TRIES):
            known = self.rater(secret)
            if known:
                return known, secret
            taken = select(func.coalesce(func.max(_raters.c.slot) + 1, 0)).where(
                _raters.c.study == self._study
            )
            try:
                with self._engine.begin() as connection:
                    rater = Rater(uuid.uuid4().hex, int(connection.execute(taken).scalar_one()))
                    connection.execute(
                        _raters.insert().values(
                            id=rater.id,
                            study=self._study,
                            slot=rater.slot,
                            secret=_hashed(secret),
                            began=_now(),
                        )
                    )
            except IntegrityError:  # another one took that number
                continue
            return rater, secret
        raise UserError("too many raters begin at once; try again in a moment")

    def rater(self, secret: str) -> Rater | None:
        """Who has a secret; None: nobody of this study."""
        wanted = select(_raters.c.id, _raters.c.slot).where(
            _raters.c.secret == _hashed(secret), _raters.c.study == self._study
        )
        with self._engine.connect() as connection:
            found = connection.execute(wanted).one_or_none()
        return Rater(found.id, found.slot) if found else None

    def answered(self, rater: Rater) -> int:
        """How many trials a rater has answered: the number of the next one."""
        counted = select(func.count()).where(_answers.c.rater == rater.id)
        with self._engine.connect() as connection:
            return int(connection.execute(counted).scalar_one())

    def add(
        self,
        rater: Rater,
        place: int,
        trial: Trial,
        answer: Sequence[int],
        milliseconds: int,
        page: str,
    ) -> None:
        """Keep an answer; when this returns, no kill loses it.

        Raises:
            AnsweredError: the trial is not the rater's next one.
        """
        if place != self.answered(rater):
            raise AnsweredError
        values: dict[str, Any] = {
            "rater": rater.id,
            "trial": place,
            "question": trial.question,
            "kind": trial.kind,
            "item": trial.item,
            "shown": list(trial.order),
            "picture": trial.column,
            "answer": list(answer),
            "milliseconds": milliseconds,
            "page": page,
            "answered": _now(),
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(_answers.insert().values(**values))
        except IntegrityError as error:  # sent twice at once
            raise AnsweredError from error

    def all(self) -> list[Answer]:
        """Every answer of the study, rater by rater in the order of the trials.

        Raises:
            UserError: the database was spoiled.
        """
        wanted = (
            select(_raters.c.slot, _answers)
            .join(_raters, _raters.c.id == _answers.c.rater)
            .where(_raters.c.study == self._study)
            .order_by(_raters.c.slot, _answers.c.trial)
        )
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(wanted).all()
        except (SQLAlchemyError, ValueError) as error:  # a column of JSON that is none
            raise UserError(
                f"--database: the answers cannot be read ({one_line(error, 200)}); expected the "
                "database that `python -m sdn_ray.study serve` wrote"
            ) from error
        return [
            Answer(
                slot=row.slot,
                trial=row.trial,
                question=row.question,
                kind=row.kind,
                item=row.item,
                shown=tuple(row.shown),
                answer=tuple(row.answer),
                picture=row.picture,
                milliseconds=row.milliseconds,
                page=row.page,
                answered=row.answered,
            )
            for row in rows
        ]

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()


def sqlite_url(folder: Path) -> str:
    """The URL of the file of answers in a study's folder."""
    return f"sqlite:///{folder.absolute() / DATABASE}"


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "what was given"
