"""Ray Data: batches of rows through a pool of actors that hold a model once each."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy

from sdn_ray.cluster.progress import Terminal
from sdn_ray.cluster.resources import runs_here, runs_on, start_ray
from sdn_ray.errors import UserError

Row = dict[str, Any]
Element = TypeVar("Element")


class BatchActor(Protocol):
    """What an actor holds: made once from keyword arguments, then called with batches of rows."""

    def __call__(self, rows: list[Row]) -> Any:
        """What becomes of a batch."""


def pool_size(actors: int | None, *, gpu: bool = True) -> tuple[int, int]:
    """How many actors the joined cluster takes, and how many GPUs each of them reserves.

    Args:
        actors: as the user asks; None is one for each GPU, or for each CPU where there is none.
        gpu: whether they can make use of one.

    Raises:
        UserError: when the cluster can never hold as many.
    """
    total = ray.cluster_resources()
    gpus, cpus = int(total.get("GPU", 0)) if gpu else 0, int(total.get("CPU", 0))
    most, kind = (gpus, "GPUs") if gpus else (cpus, "CPUs")
    if actors is not None and not 1 <= actors <= most:
        raise UserError(
            f"--workers: found {actors}, expected 1 to {most}: the cluster has {most} {kind}"
        )
    return actors or most, 1 if gpus else 0


def stream(
    batches: Sequence[Sequence[Row]],
    actor: type[BatchActor],
    arguments: dict[str, Any],
    actors: int | None = None,
    *,
    terminal: Terminal,
    in_process: int = 0,
    gpu: bool = True,
) -> Iterator[Any]:
    """What ``actor(**arguments)`` makes of each batch, in the order of the batches.

    A few rows are worked off in this process, before actors would have started. Otherwise only a
    few results wait in the object store at a time. An actor that dies is replaced and its batches
    are done again, so that a result never counts twice.

    Args:
        batches: lists of rows with the same keys.
        actor: their class; its results should be small.
        arguments: of its constructor; paths must be seen by every node.
        actors: their number, see :func:`pool_size`.
        terminal: is told where the work is done, and what is waited for.
        in_process: at most so many rows are few, unless ``actors`` asks for some.
        gpu: whether an actor can make use of one; decoding alone cannot.

    Raises:
        UserError: when an actor raises it.
    """
    if not batches:
        return
    if actors is None and sum(map(len, batches)) <= in_process:
        if gpu:
            terminal.line(runs_here())
            terminal.wait("reading the networks")
        work = actor(**arguments)
        yield from (work(list(rows)) for rows in batches)
        return
    start_ray(terminal)
    size, gpus = pool_size(actors, gpu=gpu)
    size = min(size, len(batches))
    resources = {"CPU": 1.0} | ({"GPU": float(gpus)} if gpus else {})
    if gpu:
        terminal.line(runs_on(resources, size, who="process"))
    terminal.wait("starting the processes")
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    blocks = ray.data.from_arrow([pa.Table.from_pylist(list(rows)) for rows in batches])
    results = blocks.map_batches(
        _Actor,
        fn_constructor_args=(actor, arguments),
        batch_size=None,  # a block is a batch
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=size),
        num_cpus=1,
        num_gpus=gpus or None,
    )
    # Closed at once: after an error its actors would keep their cores for as long as somebody
    # holds the traceback.
    found: Any = iter(results.iter_batches(batch_size=None, prefetch_batches=0))
    with closing(found):
        for block in found:
            for boxed in block["result"]:
                if isinstance(boxed.value, UserError):
                    raise boxed.value
                yield boxed.value


class _Actor:
    """Turns Arrow tables into rows, and a result into a column that Ray Data can carry.

    A user's error is a result too: as an exception Ray would wrap it, and lose what it was.
    """

    def __init__(self, actor: type[BatchActor], arguments: dict[str, Any]) -> None:
        self._refusal: UserError | None = None
        try:
            self._work = actor(**arguments)
        except UserError as error:
            self._refusal = error

    def __call__(self, table: pa.Table) -> dict[str, list[Any]]:
        try:
            result = self._refusal or self._work(table.to_pylist())
        except UserError as error:
            result = error
        return {"result": [_Boxed(result)]}


class _Boxed:
    """Keeps Ray Data from taking a result for a tensor or a list of columns."""

    def __init__(self, value: Any) -> None:
        self.value = value


def batched(rows: Sequence[Element], size: int) -> Iterator[Sequence[Element]]:
    """Consecutive parts of at most ``size``."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
