"""What a training shows while it runs, in the Ray dashboard and on Ray's metrics endpoint."""

from ray.util.metrics import Gauge

from sdn_ray.methods.loop import StepProgress

_TAGS = ("run", "trial", "stage")


class Gauges:
    """Loss, images/s and epoch of one training, tagged with its run, trial and stage.

    Prometheus reads them as ``ray_sdn_loss``, ``ray_sdn_images_per_second`` and ``ray_sdn_epoch``;
    ``jobs/grafana_dashboard.json`` draws them.

    Args:
        run: name of the run's or the study's folder.
        trial: number of the trial; empty where there is none.
    """

    def __init__(self, run: str, trial: str = "") -> None:
        self._tags = {"run": run, "trial": trial}
        self._loss = Gauge("sdn_loss", "Training loss, mean over the last steps", tag_keys=_TAGS)
        self._rate = Gauge("sdn_images_per_second", "Training images a second", tag_keys=_TAGS)
        self._epoch = Gauge("sdn_epoch", "Epoch of the stage, from 1", tag_keys=_TAGS)

    def __call__(self, steps: StepProgress) -> None:
        """Show the latest steps."""
        tags = self._tags | {"stage": steps.stage.name}
        self._loss.set(steps.loss, tags)
        self._rate.set(steps.images_per_second, tags)
        self._epoch.set(steps.epoch + 1, tags)
