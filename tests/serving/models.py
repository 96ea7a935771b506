"""Small models of random weights, and the page that draws with them as the command serves it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from sdn_ray.models.export import export_model
from sdn_ray.text.char_cnn_rnn import CharCnnRnn
from tests.models.test_export import new_generator, new_modulated


def small_models(folder: Path) -> dict[str, Path]:
    """A model that takes noise and one of two samples, by name."""
    encoder = CharCnnRnn("short", embedding_dim=5, cnn_dim=4)
    for parameter in encoder.parameters():
        parameter.data *= 4  # captions differ more than those of a new encoder
    encoder.save(folder / "encoder.safetensors")
    made = {"noisy": new_modulated(), "diverse": new_generator()}
    for name, generator in made.items():
        export_model(folder / name / "model", generator, folder / "encoder.safetensors", {})
    return {name: folder / name / "model" for name in made}


class Server:
    """`python -m sdn_ray.serve` at a free port, with a Ray of its own."""

    def __init__(self, models: dict[str, Path], *options: str) -> None:
        given = [f"{name}={folder}" for name, folder in models.items()]
        command = [sys.executable, "-m", "sdn_ray.serve", "--model", *given, "--port", "0"]
        # Integration tests that were here before have left what their own cluster is known by.
        theirs = ("RAY_ADDRESS", "RAY_AUTH_MODE")
        env = {name: value for name, value in os.environ.items() if name not in theirs}
        self.process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, text=True, env=env
        )
        said = []
        for line in self.process.stdout:
            said.append(line)
            found = re.fullmatch(r"open (http://localhost:\d+/)\S* \(Ctrl-C ends it\)\n", line)
            if found:
                self.url = found[1]
                return
        raise AssertionError("".join(said))

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop(signal.SIGTERM)

    def stop(self, how: int) -> int:
        """The exit status."""
        self.process.send_signal(how)
        return self.process.wait(60)
