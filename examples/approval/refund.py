"""Refunds: small ones at once, large ones after somebody's decision."""

from whenthen import flow, pause_flow_run, task
from whenthen.input import RunInput
from whenthen.states import Completed

LIMIT_CENTS = 5_000  # above it somebody has to agree
TWO_DAYS_S = 2 * 24 * 3600


class Decision(RunInput):
    approved: bool
    note: str = ""


@task(retries=2, retry_delay_seconds=5)
def pay_back(order: str, cents: int) -> str:
    print(f"{cents / 100:.2f} go back for {order}")
    return f"receipt of {order}"


@flow(log_prints=True)
def refund(order: str, cents: int):
    if cents > LIMIT_CENTS:
        question = f"Give {cents / 100:.2f} back for {order}?"
        asked = Decision.with_initial_data(description=question)
        decision = pause_flow_run(wait_for_input=asked, timeout=TWO_DAYS_S)
        if not decision.approved:
            return Completed(name="Refused", message=decision.note or "refused", data={"paid": False})
    return {"paid": True, "receipt": pay_back(order, cents)}
