"""`study serve`: the page of a study, until it is stopped."""

from pathlib import Path

from sdn_ray.judging.answers import Answers, sqlite_url
from sdn_ray.judging.page import study_app
from sdn_ray.judging.study import read_study
from sdn_ray.web.guard import Guard, check_host, given_token, is_local
from sdn_ray.web.server import address, bound_socket, serve


def serve_study(
    folder: Path, host: str, port: int, token: str | None, database: str | None
) -> None:
    """Serve.

    Args:
        folder: of the study.
        host: address to bind to.
        port: of it; 0 takes a free one.
        token: that the link must hold; needed where others reach the host.
        database: URL of SQLAlchemy; None: a file in the study's folder.

    Raises:
        UserError: the study, the address, the token or the database is not as expected.
    """
    token = given_token(token)
    check_host(host, token)
    study = read_study(folder)
    answers = Answers(database or sqlite_url(folder), study.id)
    app = Guard(study_app(folder, study, answers), local=is_local(host), token=token)
    found = bound_socket(host, port)
    print(f"open {address(host, found, token)} (Ctrl-C ends it)", flush=True)
    try:
        serve(app, found)
    finally:
        answers.close()
