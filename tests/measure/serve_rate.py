"""How many pictures the page draws for many at a time, beside `draw` in a plain loop.

python -m tests.measure.serve_rate --model runs/quickstart/model --clients 50 --seconds 60
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

import sdn_ray
from tests.serving.models import Server

WORDS = ("red", "white", "yellow", "blue", "pink", "purple", "orange")
MODEL = "measured"


def caption(number: int) -> str:
    first, second = (WORDS[number // step % len(WORDS)] for step in (1, len(WORDS)))
    return f"a {first} flower number {number} with a {second} center"


def plain_rate(model: sdn_ray.TrainedModel, batch: int, samples: int, seconds: float) -> float:
    """Pictures a second of `draw` in batches of so many captions."""
    drawn, number, start = 0, 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        model.draw([caption(number + place) for place in range(batch)], samples=samples)
        drawn, number = drawn + batch * samples, number + batch
    return drawn / (time.perf_counter() - start)


async def asked(
    url: str, clients: int, samples: int, seconds: float
) -> tuple[Counter[int], list[float]]:
    """Statuses of all requests, and how long each took.

    The clients have the same cores, of which they must not take what a library of HTTP would.
    """
    statuses: Counter[int] = Counter()
    times: list[float] = []
    end = time.perf_counter() + seconds
    found = urlsplit(url)

    async def client(own: int) -> None:
        reader, writer = await asyncio.open_connection(found.hostname, found.port)
        number = own
        while time.perf_counter() < end:
            start = time.perf_counter()
            body = json.dumps({"caption": caption(number), "samples": samples}).encode()
            writer.write(
                f"POST /api/draw HTTP/1.1\r\nhost: {found.netloc}\r\ncontent-type: application/json"
                f"\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            await reader.readexactly(length)
            statuses[int(head.split()[1])] += 1
            times.append(time.perf_counter() - start)
            number += clients
        writer.close()

    await asyncio.gather(*(client(own) for own in range(clients)))
    return statuses, times


def measure(
    url: str, model: sdn_ray.TrainedModel, options: argparse.Namespace, samples: int
) -> None:
    """Page and plain loop in turns, since the machine is now fast and now slow."""
    seconds = options.seconds / options.rounds
    statuses: Counter[int] = Counter()
    times: list[float] = []
    rates, plain = [], [plain_rate(model, options.clients, samples, seconds / 2)]
    for _ in range(options.rounds):
        start = time.perf_counter()
        found, took = asyncio.run(asked(url, options.clients, samples, seconds))
        statuses.update(found)
        times += took
        rates.append(found[200] * samples / (time.perf_counter() - start))
        plain.append(plain_rate(model, options.clients, samples, seconds / 2))
    beside = (np.array(plain[:-1]) + plain[1:]) / 2
    ratios = np.array(rates) / beside
    fifty, ninety_five, most_time = np.quantile(times, (0.5, 0.95, 1))
    print(
        f"{options.clients} clients, {samples} pictures a request: {dict(statuses)} answers, "
        f"{np.mean(rates):.0f} pictures/s, plain {np.mean(plain):.0f}: "
        f"{np.mean(rates) / np.mean(plain):.2f} (rounds {ratios.min():.2f} to {ratios.max():.2f}); "
        f"seconds: median {fifty:.3f}, p95 {ninety_five:.3f}, longest {most_time:.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=6, help="into which the seconds are cut")
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 4])
    options, others = parser.parse_known_args()  # such as --replicas 2, for the command
    model = sdn_ray.load(options.model)
    most = model.most_samples
    with Server(
        {MODEL: options.model.resolve()}, "--requests_per_second", "100000", *others
    ) as server:
        for samples in options.samples:
            if most is not None and samples > most:
                continue
            asyncio.run(asked(server.url, options.clients, samples, 3))  # what starts once
            plain_rate(model, options.clients, samples, 3)
            measure(server.url, model, options, samples)


if __name__ == "__main__":
    main()
