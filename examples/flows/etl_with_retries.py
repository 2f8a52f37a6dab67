"""Extract, transform, load, where the source fails now and then: retries with growing delays, a condition, hooks, parameters with types.

python etl_with_retries.py
"""

import datetime as dt
import sqlite3

from whenthen import flow, get_run_logger, task
from whenthen.runtime import task_run
from whenthen.tasks import exponential_backoff

ORDERS = [
    {"id": 1, "day": "2026-03-01", "amount": "19.90"},
    {"id": 2, "day": "2026-03-01", "amount": "5.00"},
    {"id": 3, "day": "2026-03-02", "amount": "-7.50"},
]


class SourceBusy(Exception):
    """The source asks to be left alone for a moment."""


def is_worth_a_retry(task, run, state):
    """Not for an order that is wrong: it will not get better."""
    return isinstance(state.result(raise_on_failure=False), SourceBusy)


@task(retries=3, retry_delay_seconds=exponential_backoff(backoff_factor=0.01), retry_condition_fn=is_worth_a_retry)
def extract(day: dt.date) -> list[dict]:
    if task_run.run_count < 3:
        raise SourceBusy(f"try {task_run.run_count}")
    return [order for order in ORDERS if order["day"] == day.isoformat()]


@task
def transform(orders: list[dict]) -> list[tuple[int, int]]:
    return [(order["id"], round(float(order["amount"]) * 100)) for order in orders]


@task
def load(rows: list[tuple[int, int]], database: str) -> int:
    with sqlite3.connect(database) as connection:
        connection.execute("create table if not exists orders (id integer primary key, cents integer)")
        connection.executemany("insert or replace into orders values (?, ?)", rows)
        (total,) = connection.execute("select sum(cents) from orders").fetchone()
    connection.close()
    get_run_logger().info("loaded %s orders", len(rows))
    return total


def tell(flow, flow_run, state):
    print(f"{flow_run.name}: {state.name}")


@flow(flow_run_name="orders of {day:%d %B}", on_completion=[tell], on_failure=[tell])
def etl(day: dt.date, database: str = "orders.db") -> int:
    return load(transform(extract(day)), database)


if __name__ == "__main__":
    print("cents:", etl("2026-03-01"))
