"""How long a command leaves its terminal without a word: python -m tests.measure.silence ARGS…

The command runs in a terminal of its own (60 or 80 columns and so on), what it writes is kept with
the time at which it came, and the longest pauses are printed, each with what stood there.

    python -m tests.measure.silence --columns 60 --log out.txt -- python -m sdn_ray.train
"""

import argparse
import fcntl
import itertools
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def watch(command: list[str], columns: int, log: Path) -> tuple[int, list[tuple[float, str]]]:
    """Run a command in a terminal; its status, and what it wrote after how many seconds."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    began = time.perf_counter()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, close_fds=True
    )
    os.close(slave)
    written: list[tuple[float, str]] = [(0.0, "(the command was started)")]
    with log.open("wb") as file:
        while True:
            ready, _, _ = select.select([master], [], [], 0.5)
            if not ready:
                if process.poll() is not None:
                    break
                continue
            try:
                content = os.read(master, 65536)
            except OSError:  # the terminal was closed
                break
            if not content:
                break
            file.write(content)
            text = content.decode("utf-8", "replace")
            written.append((time.perf_counter() - began, text))
    status = process.wait()
    written.append((time.perf_counter() - began, "(the command ended)"))
    return status, written


def last_line(text: str) -> str:
    """What stands last in a piece of output, without colours and movements."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", _CONTROL.sub("", text))]
    return next((line for line in reversed(lines) if line), "")[:100]


def main() -> None:
    """Print the longest pauses."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--columns", type=int, default=80)
    parser.add_argument("--log", type=Path, default=Path("terminal.log"))
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    status, written = watch(options.command, options.columns, options.log)
    pauses = [
        (later - earlier, earlier, text)
        for (earlier, text), (later, _) in itertools.pairwise(written)
    ]
    print(f"status {status}, {written[-1][0]:.1f} s in all; the longest pauses:")
    for pause, since, text in sorted(pauses, reverse=True)[:12]:
        print(f"{pause:6.2f} s from {since:6.1f} s on: {last_line(text)}")


if __name__ == "__main__":
    main()
