"""A model is trained anew only when its data or its options change: results that persist, cache policies, expiry, parallel trials.

The second run of the program takes everything from the folder `.whenthen/results`.

    python ml_pipeline_with_caching.py
"""

import datetime as dt
import random
from dataclasses import dataclass

from pydantic import BaseModel

from whenthen import flow, task
from whenthen.cache_policies import INPUTS, TASK_SOURCE

Point = tuple[float, float]


class Options(BaseModel):
    learning_rate: float = 0.1
    rounds: int = 200


@dataclass(frozen=True)
class Model:
    slope: float
    offset: float
    error: float


@task(cache_policy=INPUTS, cache_expiration=dt.timedelta(days=1), persist_result=True)
def prepare(rows: int, seed: int) -> list[Point]:
    print(f"prepare {rows}")
    numbers = random.Random(seed)
    return [(x, 3 * x + 2 + numbers.gauss(0, 0.01)) for x in (number / rows for number in range(rows))]


@task(cache_policy=INPUTS + TASK_SOURCE, persist_result=True)
def train(points: list[Point], options: Options) -> Model:
    print(f"train {options.learning_rate}")
    slope = offset = 0.0
    for _ in range(options.rounds):
        errors = [slope * x + offset - y for x, y in points]
        slope -= options.learning_rate * 2 * sum(e * x for e, (x, _) in zip(errors, points, strict=True)) / len(points)
        offset -= options.learning_rate * 2 * sum(errors) / len(points)
    return Model(slope, offset, sum(e * e for e in errors) / len(points))


@flow(log_prints=False)
def pipeline(rows: int = 50, rates: tuple[float, ...] = (0.05, 0.5)) -> Model:
    points = prepare(rows, seed=1)
    trials = [train.submit(points, Options(learning_rate=rate)) for rate in rates]
    return min((trial.result() for trial in trials), key=lambda model: model.error)


if __name__ == "__main__":
    best = pipeline()
    print(f"y = {best.slope:.1f} x + {best.offset:.1f}")
