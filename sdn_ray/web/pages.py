"""What our pages have in common: their own files, and errors in a sentence each."""

import logging
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sdn_ray.errors import UserError, in_python, one_line

_log = logging.getLogger("uvicorn.error")


def new_page(title: str, static: Path, first: str, *lost: type[Exception]) -> FastAPI:
    """An app with a page and its files, to which routes are added.

    Args:
        title: of its API, which ``/openapi.json`` tells.
        static: folder of the page's own files.
        first: of them the page itself.
        lost: errors that the next try may not meet; the others are faults of the program.
    """
    app = FastAPI(title=title, docs_url=None, redoc_url=None)  # those load from elsewhere

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(static / first)

    app.mount("/static", StaticFiles(directory=static), name="static")
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _wrong)
    app.add_exception_handler(UserError, _unusable)
    app.add_exception_handler(Exception, _fault)
    for kind in lost:
        app.add_exception_handler(kind, _lost)
    return app


def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _wrong(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
    return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)


def _unusable(_: Request, error: Exception) -> JSONResponse:
    try:
        with in_python():  # no options of a command: fields of the request
            raise error
    except UserError as found:
        return JSONResponse({"error": str(found)}, 422)


def _lost(_: Request, error: Exception) -> JSONResponse:
    # The page sends it again; whoever serves must hear why.
    _log.error("what the page keeps: %s", one_line(error, 300))
    return JSONResponse({"error": "this did not succeed; try again"}, 503)


def _fault(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "a fault of the program, which it has told its terminal"}, 500)
