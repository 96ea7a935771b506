"""A trained model from a folder, or from where a run is kept a second time."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from sdn_ray.errors import UserError, in_python
from sdn_ray.methods.precision import use_full_float32
from sdn_ray.models.export import Model, load_model
from sdn_ray.models.trained import TrainedModel
from sdn_ray.runs.experiment import absolute
from sdn_ray.runs.storage import RunStorage, stored_run

_MODELS = ("model", "model_last")  # of a run


@in_python()
def load(model: str | Path, *, device: str | None = None) -> TrainedModel:
    """Read a trained model, of whatever method.

    Args:
        model: the `model` folder of a run, or a URI of it where `storage` keeps the run, such as
            ``s3://bucket/folder/NAME/model``, which is fetched at every call.
        device: where it draws, such as ``cpu`` or ``cuda:1``. Default: a GPU if there is one. On
            a GPU PyTorch's float32 becomes that of commands, without TF32.

    Raises:
        UserError: naming the file that is missing or damaged.

    Example:
        >>> model = sdn_ray.load("runs/NAME/model")
        >>> model.method, model.image_size
        ('sdn', 64)
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if torch.device(device).type == "cuda":
        use_full_float32()
    return TrainedModel(read_model(str(model)).to(device))


def read_model(model: str) -> Model:
    """A model that reads captions, from its folder or its URI; as `load` has it.

    Raises:
        UserError: as there.
    """
    if "://" not in model:
        found = load_model(Path(absolute(model, "--model")))
    else:
        with TemporaryDirectory() as folder:
            found = load_model(_fetched(model, Path(folder)))
    found.reader()  # refuses a model that has none
    return found


def _fetched(uri: str, folder: Path) -> Path:
    """A model of a run in a store, brought into a folder."""
    run, model = stored_run(uri)
    store, name = stored_run(run)
    if model not in _MODELS:
        raise UserError(
            f"--model: found {uri}, expected the URI of a run followed by /{_MODELS[0]}"
        )
    try:
        whole = RunStorage(store, name).pull_model(model, folder / model)
    except OSError as error:
        raise UserError(f"--model: {uri} cannot be read ({error}); expected a model") from error
    if not whole:
        raise UserError(f"--model: {uri} holds no whole model; expected that of a finished run")
    return folder / model
