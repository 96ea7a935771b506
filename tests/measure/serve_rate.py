"""How many pictures the page draws for many at a time, beside `draw` in a plain loop.

python -m tests.measure.serve_rate --model runs/quickstart/model --clients 50 --seconds 60
"""

import argparse
import asyncio
import time
from collections import Counter
from pathlib import Path

import aiohttp
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


async def asked(url: str, clients: int, samples: int, seconds: float) -> tuple[Counter, list]:
    """Statuses of all requests, and how long those took that were answered."""
    statuses: Counter = Counter()
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def client(session: aiohttp.ClientSession, own: int) -> None:
        number = own
        while time.perf_counter() < end:
            start = time.perf_counter()
            wish = {"caption": caption(number), "samples": samples}
            async with session.post(f"{url}api/draw", json=wish) as answer:
                await answer.read()
            statuses[answer.status] += 1
            times.append(time.perf_counter() - start)
            number += clients

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(session, own) for own in range(clients)))
    return statuses, times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 4])
    options = parser.parse_args()
    model = sdn_ray.load(options.model)
    most = model.most_samples
    with Server({MODEL: options.model.resolve()}, "--requests_per_second", "100000") as server:
        for samples in options.samples:
            if most is not None and samples > most:
                continue
            asyncio.run(asked(server.url, options.clients, samples, 3))  # what starts once
            before = plain_rate(model, options.clients, samples, options.seconds / 4)
            statuses, times = asyncio.run(
                asked(server.url, options.clients, samples, options.seconds)
            )
            after = plain_rate(model, options.clients, samples, options.seconds / 4)
            rate = statuses[200] * samples / options.seconds
            plain = (before + after) / 2
            fifty, ninety_five, most_time = np.quantile(times, (0.5, 0.95, 1))
            print(
                f"{options.clients} clients, {samples} pictures a request: "
                f"{dict(statuses)} answers, {rate:.0f} pictures/s, "
                f"plain {before:.0f} and {after:.0f}: {rate / plain:.2f}; "
                f"seconds: median {fifty:.3f}, p95 {ninety_five:.3f}, longest {most_time:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
