"""Programs in the manner of Prefect's manual, each changed in something that is easy to get wrong, in the form of flow_programs.py.

The results beside them (from_manual_programs.json) were recorded with Prefect 3.9.0 on Python 3.11.

    python from_manual_programs.py FOLDER [s01 s02 ...]
"""
import asyncio, datetime as dt, os, sys, threading, time, traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional

from pydantic import BaseModel, Field

from whenthen import allow_failure, flow, get_run_logger, tags, task, unmapped
from whenthen.cache_policies import CachePolicy, INPUTS, TASK_SOURCE
from whenthen.context import get_run_context
from whenthen.futures import as_completed, wait
from whenthen.runtime import flow_run, task_run
from whenthen.states import Cancelled, Completed, Failed, get_state_exception
from whenthen.task_runners import ThreadPoolTaskRunner
from whenthen.transactions import get_transaction, transaction
from whenthen.utilities.annotations import quote

WORK = Path(sys.argv[1])
only = set(sys.argv[2:])
CASES = []
def case(fn): CASES.append(fn); return fn
def tried(fn):
    try: return fn()
    except BaseException as e: return type(e).__name__

@case
def s01_etl_with_one_bad_source_in_a_map():
    done = []
    @task(retries=2)
    def extract(name):
        done.append(name)
        if name == "b": raise ConnectionError(name)
        return name * 2
    @task
    def transform(x): return x.upper()
    @task
    def load(xs): return [repr(x) for x in xs]
    @flow
    def etl():
        raw = extract.map(["a", "b", "c"])
        ok = transform.map(raw)
        wait(ok)
        return load([allow_failure(x) for x in raw]), [x.state.name for x in ok]
    s = etl(return_state=True)
    return s.type.value, tried(s.result), sorted(done)

@case
def s02_sleep_until_ready_by_retry_condition():
    seen = []
    def not_auth(task, run, state):
        try: state.result()
        except PermissionError: return False
        except Exception: return True
    @task(retries=5, retry_condition_fn=not_auth)
    def call(codes):
        code = codes.pop(0); seen.append((code, task_run.run_count))
        if code == 503: raise TimeoutError(code)
        if code == 403: raise PermissionError(code)
        return code
    @flow
    def f(codes): return call(quote(codes))
    return tried(lambda: f([503, 503, 200])), tried(lambda: f([503, 403, 200])), seen

@case
def s03_flow_that_decides_its_state():
    @task
    def good(): return 1
    @task
    def bad(): raise ValueError("b")
    @flow
    def by_future(): return bad.submit(), good.submit()
    @flow
    def by_state(): bad(return_state=True); return Completed(message="fine")
    @flow
    def by_last():
        x = bad.submit(); return good.submit(wait_for=[allow_failure(x)])
    @flow
    def mixed(): return {"a": good.submit(), "b": bad(return_state=True)}
    return [(s.type.value, s.name, s.message) for s in (f(return_state=True) for f in (by_future, by_state, by_last))] + [mixed(return_state=True).type.value]

@case
def s04_policy_of_ones_own():
    n = []
    class ByDay(CachePolicy):
        def compute_key(self, task_ctx, inputs, flow_parameters, **kwargs):
            if not inputs.get("day"): return None
            return f"{tag}-{inputs['day']}-{flow_parameters.get('region')}"
    tag = os.urandom(4).hex()
    @task(cache_policy=ByDay(), persist_result=True)
    def t(day, noise): n.append(noise); return noise
    @flow
    def f(region, day, noise): return t(day, noise)
    return f("eu", "mon", 1), f("eu", "mon", 2), f("us", "mon", 3), f("eu", "", 4), f("eu", "", 5), n

@case
def s05_cache_policies_combined():
    n = []
    @task(cache_policy=(INPUTS - "b") + TASK_SOURCE, persist_result=True)
    def t(a, b, salt): n.append((a, b)); return a, b
    salt = os.urandom(4).hex()
    @flow
    def f(): return t(1, 2, salt), t(1, 3, salt), t(2, 3, salt)
    one = f(); two = f()
    states = []
    @flow
    def g(): states.extend(t(a, 9, salt, return_state=True).name for a in (1, 5)); return None
    g()
    return one, two, n, states

@case
def s06_expired_and_refreshed():
    n = []
    salt = os.urandom(4).hex()
    @task(cache_key_fn=lambda c, p: f"{salt}-{c.task.name}-{p['x']}", cache_expiration=dt.timedelta(seconds=30), persist_result=True)
    def t(x, i): n.append(i); return i
    @flow
    def f(i, refresh=None): return t.with_options(refresh_cache=refresh)(1, i)
    return f(1), f(2), f(3, True), f(4), n

@case
def s07_transaction_of_two_files():
    log = []
    @task
    def write(name, text): (WORK / name).write_text(text); get_transaction().set("name", name); return name
    @write.on_rollback
    def undo(txn): log.append(txn.get("name")); (WORK / txn.get("name")).unlink()
    @task
    def check(name):
        if "b" in name: raise ValueError
    @flow
    def f(second):
        with transaction():
            a = write("a7.txt", "1"); write(second, "2"); check(second)
    out = []
    for second in ("c7.txt", "b7.txt"):
        s = f(second, return_state=True)
        out.append((s.name, (WORK / "a7.txt").exists(), (WORK / second).exists()))
    return out, log

@case
def s08_hooks_see_their_run():
    seen = []
    def note(what): 
        def hook(x, run, state): seen.append((what, x.name, run.name if what != "task" else type(run.name).__name__, state.name))
        return hook
    @task(on_completion=[note("task")], on_failure=[note("task")], retries=1)
    def t(x):
        if x: raise ValueError
    @flow(flow_run_name="run-{x}", on_running=[note("running")], on_completion=[note("done")], on_failure=[note("failed")])
    def f(x): t(x)
    f(0); f(1, return_state=True)
    return seen

@case
def s09_names_of_runs_by_functions():
    def by_date():
        return f"{task_run.task_name}-{sorted(task_run.parameters)}"
    def of_flow():
        return f"{flow_run.flow_name}-{flow_run.parameters['x']}"
    @task(task_run_name=by_date)
    def t(a, b=2): return task_run.name
    @task(task_run_name="{a}-{b:03d}")
    def u(a, b=2): return task_run.name
    @flow(flow_run_name=of_flow)
    def my_flow(x: int): return flow_run.name, t(1), t.submit(1, b=5).result(), u(1), u.map([1, 2], b=7).result()
    return my_flow("3")

@case
def s10_parameters_that_are_models():
    class Place(BaseModel):
        city: str
        zip: Optional[str] = None
    class Order(BaseModel):
        id: int = Field(gt=0)
        places: list[Place] = []
        at: dt.datetime
    @flow
    def f(order: Order, limits: dict[str, float] = {"a": 1}, path: Path = "x/y", *, flag: bool = False):
        return order.id, [p.city for p in order.places], order.at.isoformat(), limits, path, flag
    at = "2026-01-01T00:00:00+00:00"
    return f({"id": "3", "places": [{"city": "Ulm"}], "at": at}, flag="yes"), tried(lambda: f({"id": 0, "at": at})), tried(lambda: f({"id": 1, "at": at}, {"a": "x"})), f.fn(Order(id=1, at=at))[4]

@case
def s11_as_completed_in_order():
    @task
    def nap(s): time.sleep(s); return s
    @flow
    def f():
        order = [x.result() for x in as_completed([nap.submit(s) for s in (2.2, 0.1, 1.1)])]
        fs = [nap.submit(0.05), nap.submit(3)]
        first = []
        try:
            for x in as_completed(fs, timeout=1): first.append(x.result())
        except TimeoutError: first.append("TimeoutError")
        return order, first
    return f()

@case
def s12_processes_of_a_runner():
    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def f():
        most, now, lock = [0], [0], threading.Lock()
        @task
        def t(i):
            with lock: now[0] += 1; most[0] = max(most[0], now[0])
            time.sleep(0.1)
            with lock: now[0] -= 1
            return i
        return t.map(range(6)).result(), most[0]
    return f()

@case
def s13_async_flow_with_sync_tasks_and_submit():
    @task
    def sync_t(x): return x + 1
    @task
    async def async_t(x): await asyncio.sleep(0.01); return x * 2
    @flow
    async def child(x): return await async_t(x)
    @flow
    async def f():
        a = sync_t(1)
        b = await async_t(a)
        c = async_t.submit(b)
        d = sync_t.map([c, 10])
        e = await asyncio.gather(child(1), child(2))
        return a, b, c.result(), d.result(), e
    return asyncio.run(f())

@case
def s14_failure_of_a_child_flow():
    ran = []
    @task
    def t(x): ran.append(x); return x
    @flow(retries=1)
    def child(x: int):
        ran.append("c")
        if x > 1 and flow_run.run_count < 2: raise ValueError(x)
        if x > 5: raise KeyError(x)
        return t(x)
    @flow
    def parent(xs): return [tried(lambda x=x: child(x)) for x in xs]
    @flow
    def by_state(): s = child(6, return_state=True); return s.name, type(s.result(raise_on_failure=False)).__name__, s.is_failed()
    return parent([1, 2, 6]), by_state(), ran

@case
def s15_logs_of_a_run(): 
    import logging
    lines = []
    class Keep(logging.Handler):
        def emit(self, r): lines.append((r.levelname, r.getMessage())) if "hello" in r.getMessage() or "printed" in r.getMessage() else None
    h = Keep()
    @task
    def t(x): get_run_logger().warning("hello %s", x); print("printed in task")
    @flow(log_prints=True)
    def f():
        log = get_run_logger(); log.logger.addHandler(h) if hasattr(log, "logger") else log.addHandler(h)
        log.info("hello flow"); print("printed", 1, 2, sep="-")
    try: f()
    finally: pass
    return lines, tried(get_run_logger)

@case
def s16_generators_are_streamed():
    seen = []
    @task
    def rows(n):
        for i in range(n): seen.append(i); yield i
    @flow
    def f():
        out = []
        for r in rows(5):
            out.append(r)
            if r == 2: break
        return out
    @task
    def broken():
        yield 1
        raise ValueError("x")
    @flow
    def g():
        out = []
        try:
            for r in broken(): out.append(r)
        except ValueError as e: out.append(str(e))
        return out
    return f(), seen, g(), list(rows(2))

@case
def s17_states_asked_for_their_exceptions():
    @flow
    def bad(): raise OSError("disk")
    @flow
    def told(): return Failed(message="told so")
    @flow
    def stopped(): return Cancelled(message="no more")
    out = []
    for f in (bad, told, stopped):
        s = f(return_state=True)
        e = get_state_exception(s)
        out.append((s.type.value, type(e).__name__, str(e), tried(s.result), type(s.result(raise_on_failure=False)).__name__))
    return out

@case
def s18_with_options_of_flows_and_tasks():
    n = []
    @task(name="base", retries=1, tags=["a"])
    def t(fail):
        n.append(1)
        if fail: raise ValueError
        return sorted(task_run.tags)
    other = t.with_options(name="other", retries=0, tags=["b"])
    @flow(name="One", retries=0)
    def f(fail=False):
        with tags("c"): return tried(lambda: t(fail)), tried(lambda: other(fail))
    g = f.with_options(name="Two", flow_run_name="named", timeout_seconds=30)
    return f(), f(True), len(n), g(), (g.name, f.name, g.timeout_seconds, other.retries, t.name, sorted(t.tags))

@case
def s19_waiting_for_several_upstreams():
    log = []
    @task
    def step(name, *deps, fail=False):
        log.append(name)
        if fail: raise ValueError(name)
        return name
    @flow
    def f():
        a = step.submit("a"); b = step.submit("b", wait_for=[a]); c = step.submit("c", fail=True, wait_for=[b])
        d = step.submit("d", wait_for=[c]); e = step.submit("e", wait_for=[allow_failure(c), d]); g = step.submit("g", wait_for=[allow_failure(c)])
        wait([d, e, g])
        return [x.state.name for x in (a, b, c, d, e, g)]
    s = f(return_state=True)
    return s.name, s.result(raise_on_failure=False), log

@case
def s20_contexts_of_runs_and_threads():
    @task
    def t():
        c = get_run_context()
        return c.task.name, c.task_run.name == task_run.name, type(c).__name__
    @flow
    def f(x=1):
        c = get_run_context()
        with ThreadPoolExecutor(1) as pool: there = pool.submit(lambda: tried(lambda: type(get_run_context()).__name__)).result()
        return (c.flow.name, c.flow_run.name == flow_run.name, c.parameters), t(), there
    return f(), tried(get_run_context)

@case
def s21_timeouts_of_a_flow_and_its_child():
    @flow(timeout_seconds=1)
    def slow(): 
        for _ in range(100): time.sleep(0.1)
    @flow
    def parent():
        s = slow(return_state=True)
        return s.name, s.type.value
    @flow(timeout_seconds=1)
    async def aslow(): await asyncio.sleep(20)
    return parent(), tried(slow), tried(lambda: asyncio.run(aslow()))

@case
def s22_mapping_over_dicts_texts_and_kwargs():
    @task
    def t(a, b=0, **more): return a, b, more
    @flow
    def f():
        return (t.map({"x": 1, "y": 2}).result(), t.map([1, 2], b=unmapped([7]), c="text", d=[3, 4]).result(), tried(lambda: t.map("ab")), t.map(range(2), 5).result(),
                t.map((i for i in "ab")).result(), t.map([]).result())
    return f()

@case
def s23_serializable_isolation_and_keys():
    n = []
    salt = os.urandom(4).hex()
    @flow
    def f():
        out = []
        for i in range(2):
            with transaction(key=f"k-{salt}") as txn:
                if not txn.is_committed(): n.append(i); txn.stage(i)
                out.append((txn.state.value if hasattr(txn.state, "value") else txn.state))
        return out
    return f(), n

@case
def s24_results_of_none_and_falsy_values():
    @task
    def t(x): return x
    @flow
    def f(x): return t(x)
    @flow
    def g(x): return t.submit(x)
    return [f(x) for x in (None, 0, "", [], False)], [g(x, return_state=True).type.value for x in (None, 0, [])], f(None, return_state=True).result()

if __name__ == "__main__":
    for fn in CASES:
        if only and fn.__name__[:3] not in only: continue
        t = time.monotonic()
        try: out = fn()
        except BaseException as e: out = "EXC " + "".join(traceback.format_exception_only(e)).strip(); traceback.print_exc()
        print(f"RESULT {fn.__name__}: {out!r}  ({time.monotonic()-t:.1f}s)", flush=True)
