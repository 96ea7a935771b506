"""Ray Data: batches of rows through a pool of actors that hold a model once each."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy

from sdn_ray.cluster import start_ray
from sdn_ray.errors import UserError

Row = dict[str, Any]


class BatchWorker(Protocol):
    """What an actor holds: made once from keyword arguments, then called with batches of rows."""

    def __call__(self, rows: list[Row]) -> Any:
        """What becomes of a batch."""


def pool_size(workers: int | None) -> tuple[int, dict[str, float]]:
    """How many actors the joined cluster takes, and what each of them reserves.

    Args:
        workers: as the user asks; None is one for each GPU, or for each CPU where there is none.

    Raises:
        UserError: when the cluster can never hold as many.
    """
    total = ray.cluster_resources()
    gpus, cpus = int(total.get("GPU", 0)), int(total.get("CPU", 0))
    most, kind = (gpus, "GPUs") if gpus else (cpus, "CPUs")
    if workers is not None and not 1 <= workers <= most:
        raise UserError(
            f"--workers: found {workers}, expected 1 to {most}: the cluster has {most} {kind}"
        )
    return workers or most, {"num_cpus": 1, "num_gpus": 1} if gpus else {"num_cpus": 1}


def stream(
    batches: Sequence[Sequence[Row]],
    worker: type[BatchWorker],
    arguments: dict[str, Any],
    workers: int | None = None,
    *,
    in_process: int = 0,
) -> Iterator[Any]:
    """What ``worker(**arguments)`` makes of each batch, in the order of the batches.

    A few rows are worked off here, before actors would have started. Otherwise only a few results
    wait in the object store at a time. An actor that dies is replaced and its batches are done
    again, so that a result never counts twice.

    Args:
        batches: lists of rows with the same keys.
        worker: class of the actors; its results should be small.
        arguments: of its constructor; paths must be seen by every node.
        workers: number of actors, see :func:`pool_size`.
        in_process: at most so many rows are few, unless ``workers`` asks for actors.

    Raises:
        UserError: when a worker raises it.
    """
    if not batches:
        return
    if workers is None and sum(map(len, batches)) <= in_process:
        work = worker(**arguments)
        yield from (work(list(rows)) for rows in batches)
        return
    start_ray()
    size, resources = pool_size(workers)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    blocks = ray.data.from_arrow([pa.Table.from_pylist(list(rows)) for rows in batches])
    results = blocks.map_batches(
        _Actor,
        fn_constructor_args=(worker, arguments),
        batch_size=None,  # a block is a batch
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=min(size, len(batches))),
        **resources,
    )
    for block in results.iter_batches(batch_size=None, prefetch_batches=0):
        for boxed in block["result"]:
            if isinstance(boxed.value, UserError):
                raise boxed.value
            yield boxed.value


def actor_device() -> str:
    """Where an actor computes: its GPU, or the one CPU core that it reserved."""
    import torch  # here, since an actor that only reads files need not wait for it

    return "cuda" if torch.cuda.is_available() else "cpu"


class _Actor:
    """Turns Arrow tables into rows, and a result into a column that Ray Data can carry.

    A user's error is a result too: as an exception Ray would wrap it, and lose what it was.
    """

    def __init__(self, worker: type[BatchWorker], arguments: dict[str, Any]) -> None:
        self._refusal: UserError | None = None
        try:
            self._work = worker(**arguments)
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
