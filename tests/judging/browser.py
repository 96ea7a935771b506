"""The study's page in a browser, served by the command itself."""

import re
import signal
import subprocess
import sys
from pathlib import Path

# Three seconds pass between any two looks at the clock: raters of flesh are not so fast.
SLOW_CLOCK = "let now = 0; performance.now = () => (now += 3000);"


class Server:
    """`python -m sdn_ray.study serve`, which can be killed and started again at its port."""

    def __init__(self, study: Path) -> None:
        self._study, self.port = study, 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "sdn_ray.study", "serve", "--study", str(self._study)]
        self._process = subprocess.Popen(
            [*command, "--port", str(self.port)], stdout=subprocess.PIPE, text=True
        )
        line = self._process.stdout.readline()
        found = re.fullmatch(r"open (http://localhost:(\d+)/) \(Ctrl-C ends it\)\n", line)
        assert found, line
        self.url, self.port = found[1], int(found[2])

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """As Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(20)


def names_of(page) -> list[str]:
    """The file names of the pictures that are shown, from left to right."""
    found = page.eval_on_selector_all(".picture img", "all => all.map(one => one.src)")
    return [source.rpartition("/")[2] for source in found]


def all_settled(page, trials: int) -> None:
    """Wait until a trial is shown whose number is ``trials``, or the end."""
    settled = """n => document.getElementById('count').textContent.startsWith(n + ' of ')
        && document.getElementById('trial').getAttribute('aria-busy') === 'false'"""
    page.wait_for_function(settled, arg=trials)
