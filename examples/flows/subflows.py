"""Flows in flows, sync and async: parameters are checked at each border, a failed part can be caught, parts run side by side.

python subflows.py
"""

import asyncio

from pydantic import BaseModel, Field

from whenthen import flow, tags, task
from whenthen.runtime import flow_run, task_run


class Region(BaseModel):
    name: str
    shops: int = Field(ge=0)


@task(task_run_name="visit-{region}-{shop}", tags=["visit"])
async def visit(region: str, shop: int) -> tuple[int, list[str]]:
    await asyncio.sleep(0.01)
    return shop, sorted(task_run.tags)


@flow(flow_run_name="{region.name}")
async def sales_of(region: Region) -> int:
    if region.shops == 0:
        raise ValueError(f"{flow_run.name} has no shops")
    visits = await asyncio.gather(*(visit(region.name, shop) for shop in range(region.shops)))
    assert all("visit" in found for _, found in visits)
    return sum(shop for shop, _ in visits)


@flow
async def sales(regions: list[Region]) -> dict[str, int | str]:
    with tags("nightly"):
        states = await asyncio.gather(*(sales_of(region, return_state=True) for region in regions))
    found = {}
    for region, state in zip(regions, states, strict=True):
        found[region.name] = await state.result() if state.is_completed() else state.message
    return found


@flow
def report(limit: int = 4) -> str:
    """A sync flow around an async one."""
    found = asyncio.run(
        sales([{"name": "north", "shops": 3}, {"name": "south", "shops": limit}, {"name": "sea", "shops": 0}])
    )
    return ", ".join(f"{name}: {what}" for name, what in found.items())


if __name__ == "__main__":
    print(report())
