"""What users call: a trained model, training, scores."""

from .errors import UserError as UserError
from .evaluate import evaluate as evaluate
from .models.trained import TrainedModel as TrainedModel
from .runs.loading import load as load
from .train import train as train

__version__: str
