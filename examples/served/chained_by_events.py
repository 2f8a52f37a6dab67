"""Two flows that know nothing of each other, chained by an event: the first one says what it has loaded, and the second one starts on that.

    python chained_by_events.py

`whenthen deployments run load-orders/hourly` starts the chain by hand, `whenthen trace RUN` shows it from either end.
"""

from __future__ import annotations

from whenthen import flow, serve, task
from whenthen.events import DeploymentEventTrigger, emit_event


@task
def read_orders(country: str) -> list[int]:
    """Totals of orders, from where orders are."""
    return {"fr": [120, 80, 45], "de": [300]}.get(country, [])


@flow
def load_orders(country: str = "fr") -> int:
    """Load the orders of a country, and say so."""
    totals = read_orders(country)
    emit_event(
        "orders.loaded",
        resource={"id": f"orders.{country}", "country": country},
        payload={"rows": len(totals), "total": sum(totals)},
    )
    return len(totals)


@flow(log_prints=True)
def report(country: str, rows: int, total: float) -> str:
    """Write a line about what was loaded."""
    line = f"{country}: {rows} orders of {total / rows:.2f} on average"
    print(line)
    return line


if __name__ == "__main__":
    serve(
        load_orders.to_deployment("hourly", cron="0 * * * *"),
        report.to_deployment(
            "after-load",
            triggers=[
                DeploymentEventTrigger(
                    expect={"orders.loaded"},
                    parameters={
                        "country": "{{ event.resource.country }}",
                        "rows": "{{ event.payload.rows }}",
                        "total": "{{ event.payload.total }}",
                    },
                )
            ],
        ),
    )
