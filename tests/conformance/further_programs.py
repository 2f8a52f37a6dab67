"""Further short programs for the flow SDK, in the form of flow_programs.py: what Prefect documents and users rely on.

The results beside them (further_programs.json) were recorded with Prefect 3.9.0 on Python 3.11.

    python further_programs.py FOLDER [q01 q02 ...]
"""
import asyncio, dataclasses, datetime as dt, enum, json, os, pathlib, sys, threading, time, traceback, typing, uuid

import pydantic

from whenthen import Flow, Task, allow_failure, flow, get_run_logger, tags, task, unmapped
from whenthen.cache_policies import DEFAULT, FLOW_PARAMETERS, INPUTS, NO_CACHE, RUN_ID, TASK_SOURCE
from whenthen.context import FlowRunContext, TaskRunContext, get_run_context
from whenthen.futures import as_completed, wait
from whenthen.runtime import flow_run as rt_flow, task_run as rt_task
from whenthen.states import Cancelled, Completed, Failed, get_state_exception
from whenthen.task_runners import ThreadPoolTaskRunner
from whenthen.tasks import exponential_backoff, task_input_hash
from whenthen.transactions import CommitMode, get_transaction, transaction
from whenthen.utilities.annotations import quote

WORK = sys.argv[1]
only = set(sys.argv[2:])
CASES = []
def case(fn): CASES.append(fn); return fn
def kind(e): return type(e).__name__
def kinds(e): return [c.__name__ for c in type(e).__mro__ if c.__module__ == "builtins" and c is not object]


@case
def q01_binding_errors():
    @flow
    def f(a, b=2): return a, b
    out = []
    for args, kwargs in [((), {}), ((1, 2, 3), {}), ((1,), {"c": 1}), ((1,), {"a": 1})]:
        try: out.append(f(*args, **kwargs))
        except Exception as e: out.append((kind(e), isinstance(e, TypeError)))
    @task
    def t(a): return a
    try: t()
    except Exception as e: out.append((kind(e), isinstance(e, TypeError)))
    return out

@case
def q02_refused_parameters_fail_the_run():
    seen = []
    @flow(on_failure=[lambda f, r, s: seen.append(("failure", s.name))], on_running=[lambda f, r, s: seen.append("running")])
    def f(n: int): seen.append("body")
    s = f("x", return_state=True)
    return s.type.value, s.name, kind(s.result(raise_on_failure=False)), seen

@case
def q03_kinds_of_parameters():
    class Colour(enum.Enum):
        RED = "red"
    class Model(pydantic.BaseModel):
        n: int
    @dataclasses.dataclass
    class Point:
        x: int
    class Plain: pass
    @flow
    def f(m: Model, c: Colour, p: pathlib.Path, d: dt.datetime, t: dt.timedelta, u: uuid.UUID, l: list[int], o: typing.Optional[float], x: Plain, pt: Point):
        return m.n, c.name, str(p), d.year, t.seconds, u.int, l, o, kind(x), pt.x
    return f({"n": "3"}, "red", "a/b", "2026-01-02T03:04:05", 90, "00000000-0000-0000-0000-000000000007", ("1", 2), "1.5", Plain(), {"x": "4"})

@case
def q04_wrong_class_is_refused():
    class Plain: pass
    @flow
    def f(x: Plain): return 1
    try: return f(3)
    except Exception as e: return kind(e)

@case
def q05_defaults_are_validated():
    @flow
    def f(n: int = "5", d: dt.date = "2026-01-01"): return n, d
    return f()

@case
def q06_task_parameters_are_not_validated():
    @task
    def t(n: int): return n
    @flow
    def f(): return t("7")
    return f()

@case
def q07_hooks_of_a_task_that_is_retried():
    seen = []
    @task(retries=1, retry_delay_seconds=0, on_failure=[lambda t, r, s: seen.append(("fail", s.name))], on_completion=[lambda t, r, s: seen.append(("done", s.name))], on_running=[lambda t, r, s: seen.append(("run", s.name))])
    def t(bad):
        if bad or rt_task.run_count == 1: raise ValueError()
    @flow
    def f():
        t(False); seen.append("--")
        try: t(True)
        except ValueError: pass
    f()
    return seen

@case
def q08_hooks_of_a_flow_that_is_retried():
    seen = []
    @flow(retries=1, retry_delay_seconds=0, on_failure=[lambda t, r, s: seen.append(("fail", s.name))], on_completion=[lambda t, r, s: seen.append(("done", s.name))], on_running=[lambda t, r, s: seen.append(("run", s.name))])
    def f(bad):
        if bad or rt_flow.run_count == 1: raise ValueError()
    f(False); seen.append("--")
    try: f(True)
    except ValueError: pass
    return seen

@case
def q09_a_hook_that_raises_stops_no_other():
    seen = []
    def bad(f, r, s): seen.append("bad"); raise RuntimeError()
    def good(f, r, s): seen.append("good")
    @task(on_completion=[bad, good])
    def t(): return 1
    @flow(on_completion=[bad, good])
    def f(): return t()
    s = f(return_state=True)
    return s.name, s.result(), seen

@case
def q10_hooks_by_decorator_and_async():
    seen = []
    @flow
    def f(): return 1
    @f.on_completion
    def one(fl, run, state): seen.append((fl.name, run.name != "", state.result()))
    @f.on_completion
    async def two(fl, run, state): await asyncio.sleep(0); seen.append("two")
    @task
    def t(): raise ValueError()
    @t.on_failure
    def three(tk, run, state): seen.append((tk.name, state.name, kind(state.result(raise_on_failure=False))))
    @flow
    def g(): t(return_state=True)
    f(); g()
    return seen

@case
def q11_list_and_callable_of_delays():
    @task(retries=3, retry_delay_seconds=[0.1, 0.2])
    def a(): pass
    @task(retries=3, retry_delay_seconds=exponential_backoff(backoff_factor=2))
    def b(): pass
    out = [a.retry_delay_seconds, b.retry_delay_seconds]
    for bad in (dict(retry_delay_seconds="1"), dict(retries=60, retry_delay_seconds=[1] * 51), dict(retry_jitter_factor=-1)):
        try: task(**bad)(lambda: 1); out.append(None)
        except Exception as e: out.append(kind(e))
    return out

@case
def q12_delays_are_waited():
    times = []
    @task(retries=2, retry_delay_seconds=[0.3, 0.6])
    def t():
        times.append(time.monotonic())
        if len(times) < 3: raise ValueError()
    @flow
    def f(): t()
    f()
    return times[1] - times[0] >= 0.3, times[2] - times[1] >= 0.6

@case
def q13_state_messages():
    @task
    def t(): raise ValueError("no paper")
    @flow
    def f(): t()
    @flow
    def g(): return 1
    @flow
    def h(): raise KeyError("k")
    a = f(return_state=True)
    @flow
    def i(): return t(return_state=True).message
    return (a.name, a.message), g(return_state=True).message, h(return_state=True).message, i()

@case
def q14_timeouts():
    @task(timeout_seconds=0.3)
    def slow(): time.sleep(0.6); time.sleep(0.6); return 1
    @task(timeout_seconds=0.3)
    async def aslow(): await asyncio.sleep(5)
    @flow
    async def f():
        s = slow(return_state=True); a = await aslow(return_state=True)
        return (s.name, s.type.value, s.message), (a.name, a.type.value, a.message)
    @flow(timeout_seconds=0.3)
    def g(): time.sleep(0.6); time.sleep(0.6)
    s = g(return_state=True)
    try: g(); e = None
    except Exception as x: e = kinds(x)
    return asyncio.run(f()), (s.name, s.type.value, s.message), e

@case
def q15_timeout_is_retried():
    n = []
    @task(timeout_seconds=1.5, retries=1)
    def t():
        n.append(1)
        if len(n) < 2: time.sleep(1); time.sleep(1)
        return "ok"
    @flow
    def f(): return t()
    return f(), len(n)

@case
def q16_own_timeout_error():
    @task
    def t(): raise TimeoutError("mine")
    @flow
    def f(): return t(return_state=True)
    s = f(return_state=True)
    return s.name, s.message

@case
def q17_submit_outside_a_flow():
    @task
    def t(): return 1
    try: t.submit(); a = None
    except Exception as e: a = kinds(e)
    return a, t(), t(return_state=True).name

@case
def q18_wait_for():
    log = []
    @task
    def a(): time.sleep(0.2); log.append("a")
    @task
    def b(): log.append("b")
    @task
    def bad(): raise ValueError()
    @flow
    def f():
        x = a.submit(); y = b.submit(wait_for=[x]); y.wait()
        z = b.submit(wait_for=[bad.submit()]); z.wait()
        w = b.submit(wait_for=[allow_failure(bad.submit())]); w.wait()
        return y.state.name, z.state.name, w.state.name
    return f(), log

@case
def q19_wait_for_of_a_direct_call():
    @task
    def bad(): raise ValueError()
    @task
    def b(): return 1
    @flow
    def f():
        s = b(wait_for=[bad.submit()], return_state=True)
        return Completed(name=s.name, message=s.type.value)
    s = f(return_state=True)
    @flow
    def g():
        try: return b(wait_for=[bad.submit()])
        except BaseException as e: return kind(e)
    return s.name, s.message, g()

@case
def q20_allow_failure():
    @task
    def bad(): raise ValueError("x")
    @task
    def t(v): return kind(v), str(v)
    @flow
    def f(): return t(allow_failure(bad.submit())), t.submit(allow_failure(bad.submit())).result()
    return f()

@case
def q21_nested_futures_in_containers():
    @task
    def one(): return 1
    @task
    def t(d, l): return d, l
    @flow
    def f():
        x = one.submit()
        return t({"a": x, "b": [x, (x, 2)]}, [x])
    return f()

@case
def q22_quote():
    @task
    def t(v): return kind(v), v.unquote() if hasattr(v, "unquote") else v
    @flow
    def f(): return t(quote([1, 2]))
    return f()

@case
def q23_map_errors_and_lengths():
    @task
    def t(a, b=1): return a, b
    @flow
    def f():
        out = []
        for call in (lambda: t.map(1), lambda: t.map([1, 2], [1, 2, 3]), lambda: t.map([])):
            try: out.append(call().result())
            except Exception as e: out.append(kind(e))
        return out
    return f()

@case
def q24_map_kinds_of_iterables():
    @task
    def t(a, b=None, **k): return a, b, k
    @flow
    def f():
        return (t.map(range(2)).result(), t.map((i for i in (1, 2)), b=unmapped([0])).result(), t.map([1, 2], z=[3, 4]).result(),
                t.map([[1], [2]]).result(), t.map([1, 2], b="xy").result(), t.map({"x": 1, "y": 2}).result(), t.map((1, 2), {3, 3.0}.__class__([7, 7]) and [7, 8]).result())
    return f()

@case
def q25_map_over_future_of_a_failed_task():
    @task
    def bad(): raise ValueError()
    @task
    def t(v): return v
    @flow
    def f():
        try: return t.map(bad.submit()).result()
        except Exception as e: return kind(e)
    return f()

@case
def q26_map_with_mixed_futures():
    @task
    def bad(n):
        if n == 2: raise ValueError(n)
        return n
    @task
    def t(v): return v * 10
    @flow
    def f():
        fs = t.map(bad.map([1, 2, 3])); wait(fs)
        return [x.state.name for x in fs]
    @flow
    def g():
        fs = t.map(allow_failure(bad.map([1, 3])))
        return fs.result(raise_on_failure=False)
    return f(), g()

@case
def q27_futures_of_a_list():
    @task
    def t(n):
        if n < 0: raise ValueError(n)
        time.sleep(n / 2); return n
    @flow
    def f():
        fs = t.map([2, 0, 1])
        order = [x.result() for x in as_completed(fs)]
        b = t.submit(-1); b.wait()
        return order, kind(b.result(raise_on_failure=False)), t.map([1, -1]).result(raise_on_failure=False)[0]
    return f()

@case
def q28_result_timeouts():
    @task
    def t(): time.sleep(3); return 1
    @flow
    def f():
        x = t.submit()
        try: x.result(timeout=0.1); a = None
        except Exception as e: a = kinds(e)
        x.wait(timeout=0.1); b = x.state.is_final()
        try: list(as_completed([x], timeout=0.1)); c = None
        except Exception as e: c = kinds(e)
        return a, b, c, x.result()
    return f()

@case
def q29_done_callback():
    seen = []
    @task
    def t(): return 3
    @flow
    def f():
        x = t.submit(); x.add_done_callback(lambda fut: seen.append(fut is x)); x.wait(); time.sleep(1)
    f()
    return seen

@case
def q30_returned_futures():
    @task
    def ok(): return 1
    @task
    def bad(): raise ValueError("x")
    @flow
    def f(): return [ok.submit(), bad.submit()]
    @flow
    def g(): return ok.submit()
    @flow
    def h(): return bad.submit()
    @flow
    def i(): return {"a": ok.submit(), "n": 1}
    @flow
    def j(): return [ok.submit(), 5]
    @flow
    def k(): return ok.map([]) if False else [ok.submit() for _ in range(3)]
    out = []
    for x in (f, g, h, i, j, k):
        s = x(return_state=True)
        r = s.result(raise_on_failure=False)
        out.append((s.name, s.message, kind(r)))
    return out, kind(g())

@case
def q31_raised_by_returned_states():
    @task
    def bad(n): raise ValueError(n)
    @flow
    def f(): return [bad(1, return_state=True), bad(2, return_state=True)]
    @flow
    def g(): return Failed(message="told so")
    @flow
    def h(): return Cancelled()
    @flow
    def i(): return Failed()
    out = []
    for x in (f, g, h, i):
        try: out.append(kind(x()))
        except BaseException as e: out.append((kind(e), str(e)))
    return out

@case
def q32_states_as_results():
    @flow
    def f(): return Completed(data=5)
    @flow
    def g(): return Completed()
    @flow
    def h(): return Completed(message="hi", name="Skipped", data={"a": 1})
    r = f(), h()
    try: x = g()
    except Exception as e: x = kind(e)
    return r, x

@case
def q33_task_that_returns_a_state():
    @task(retries=1, retry_delay_seconds=0)
    def t(): n.append(1); return Failed(message="no")
    n = []
    @flow
    def f():
        s = t(return_state=True); return Completed(name="X", message=f"{s.name} {s.message} {len(n)}")
    s = f(return_state=True)
    @task
    def u(): return Completed(name="Mine", data=3)
    @flow
    def g():
        s = u(return_state=True); return s.name, u()
    try: r = g()
    except Exception as e: r = kind(e)
    return s.message, r if not isinstance(r, tuple) else (r[0], kind(r[1]))

@case
def q34_subflows():
    @task
    def t(n): return n + 1
    @flow
    def child(n: int):
        if n > 5: raise ValueError("child")
        return t(n), rt_flow.name != "", rt_flow.parent_flow_run_id is not None, rt_flow.root_flow_run_id is not None
    @flow
    def parent():
        s = child(9, return_state=True)
        return child("1"), s.name, child(t.submit(2)), rt_flow.parent_flow_run_id
    @flow
    def failing(): child(9)
    s = failing(return_state=True)
    return parent(), s.name, s.message, kind(s.result(raise_on_failure=False))

@case
def q35_subflow_of_a_failed_future():
    @task
    def bad(): raise ValueError()
    @flow
    def child(x): return x
    @flow
    def parent():
        s = child(bad.submit(), return_state=True)
        return Completed(name=s.name, message=s.type.value)
    s = parent(return_state=True)
    return s.name, s.message

@case
def q36_nested_tasks():
    @task
    def inner(n): return n * 2, rt_task.name[:5]
    @task
    def outer(n): return inner(n), inner.submit(n).result()
    @flow
    def f(): return outer(2), outer.submit(3).result()
    return f()

@case
def q37_task_in_a_task_without_a_flow():
    @task
    def inner(n): return n * 2
    @task
    def outer(n): return inner(n) + 1
    return outer(2)

@case
def q38_methods():
    class A:
        def __init__(self, n): self.n = n
        @task
        def t(self, x): return self.n + x
        @flow
        def f(self, x: int): return self.t(x), self.t.submit(1).result()
        @classmethod
        @flow
        def c(cls, x: int): return cls.__name__, x
        @staticmethod
        @flow
        def s(x: int): return x
        @task
        @classmethod
        def tc(cls, x): return cls.__name__, x
        @task
        @staticmethod
        def ts(x): return x
    a, b = A(1), A(10)
    return a.f("2"), b.f(2), A.c("3"), A.s("4"), A.tc(5), A.ts(6), a.tc(7)

@case
def q39_generators():
    log = []
    @task
    def t(n):
        for i in range(n): yield i
    @flow
    def f(n):
        for i in t(n): yield i * 10
    @flow
    def g(): return list(t(3)), t.submit(2).result()
    @task
    async def at(n):
        for i in range(n): yield i
    @flow
    async def af(): return [x async for x in at(3)]
    @flow
    def bad(): yield 1; raise ValueError()
    try:
        for x in bad(): log.append(x)
    except ValueError: log.append("raised")
    return list(f(3)), g(), asyncio.run(af()), log

@case
def q40_async_and_sync_mixed():
    @task
    def s(n): return n
    @task
    async def a(n): await asyncio.sleep(0); return n
    @flow
    async def f():
        x = a.submit(1); y = s.submit(2)
        return x.result(), y.result(), s(3), await a(4), await asyncio.gather(a(5), a(6)), a.map([7, 8]).result()
    @flow
    def g():
        return a.submit(1).result(), asyncio.iscoroutine(c := a(2)), c.close()
    return asyncio.run(f()), g()

@case
def q41_async_subflows():
    @flow
    async def child(n: int): await asyncio.sleep(0.05); return n
    @flow
    async def parent(): return await asyncio.gather(child("1"), child(2)), await child(3, return_state=True)
    r, s = asyncio.run(parent())
    return r, s.name

@case
def q42_async_failure():
    @task
    async def bad(): raise ValueError("x")
    @flow
    async def f():
        r = await asyncio.gather(bad(), bad(), return_exceptions=True)
        return [kind(e) for e in r]
    @flow
    async def g(): await bad()
    s = asyncio.run(g(return_state=True))
    return asyncio.run(f()), s.name, s.message

@case
def q43_cache_policies():
    runs = []
    def made(policy, **kw):
        @task(cache_policy=policy, persist_result=True, **kw)
        def t(a, b=0): runs.append(a); return a
        return t
    tag = str(uuid.uuid4())
    out = []
    for policy in (INPUTS, INPUTS - "b", TASK_SOURCE + INPUTS, RUN_ID, FLOW_PARAMETERS, NO_CACHE, DEFAULT, INPUTS + RUN_ID):
        t = made(policy)
        @flow
        def f(x): return t(tag), t(tag, 1), t(tag, 1)
        runs.clear(); f(1); one = len(runs); f(1); two = len(runs); f(2)
        out.append((one, two, len(runs)))
        tag = str(uuid.uuid4())
    return out

@case
def q44_cached_state_and_refresh():
    n = []
    tag = str(uuid.uuid4())
    @task(cache_policy=INPUTS, persist_result=True)
    def t(x): n.append(1); return len(n)
    @flow
    def f():
        a = t(tag, return_state=True); b = t(tag, return_state=True); c = t.with_options(refresh_cache=True)(tag, return_state=True); d = t(tag, return_state=True)
        return [(s.name, s.result()) for s in (a, b, c, d)]
    return f()

@case
def q45_task_input_hash():
    n = []
    tag = str(uuid.uuid4())
    @task(cache_key_fn=task_input_hash, cache_expiration=dt.timedelta(hours=1))
    def t(x, y): n.append(1); return x
    @flow
    def f(): t(tag, [1]); t(tag, [1]); t(tag, [2])
    f(); f()
    return len(n), t.persist_result

@case
def q46_caching_without_persistence():
    n = []
    @task
    def t(x): n.append(1); return x
    @task(cache_policy=INPUTS)
    def u(x): n.append("u"); return x
    @task(cache_policy=INPUTS, persist_result=False)
    def v(x): n.append("v"); return x
    tag = str(uuid.uuid4())
    @flow
    def f(): t(1); t(1); u(tag); u(tag); v(tag); v(tag)
    f()
    return n, t.persist_result, u.persist_result, v.persist_result

@case
def q47_cached_failures_are_not():
    n = []
    tag = str(uuid.uuid4())
    @task(cache_policy=INPUTS, persist_result=True)
    def t(x): n.append(1); raise ValueError()
    @flow
    def f(): t(tag, return_state=True); t(tag, return_state=True)
    f(return_state=True)
    return len(n)

@case
def q48_inputs_that_can_not_be_hashed():
    @task(cache_policy=INPUTS, persist_result=True)
    def t(x): return 1
    @flow
    def f(): return t(threading.Lock(), return_state=True)
    s = f(return_state=True)
    return s.name

@case
def q49_results_that_can_not_be_pickled():
    @task(cache_policy=INPUTS, persist_result=True)
    def t(x): return threading.Lock()
    @task
    def u(): return threading.Lock()
    @flow
    def f(): return t(str(uuid.uuid4()), return_state=True).name, kind(u())
    @flow(persist_result=True)
    def g(): return threading.Lock()
    return f(), g(return_state=True).name

@case
def q50_result_storage_key():
    @task(persist_result=True, result_storage_key="{task_run.task_name}-{parameters[x]}.bin")
    def t(x): n.append(x); return x
    n = []
    tag = str(uuid.uuid4())
    @flow
    def f(): return t(tag), t(tag)
    f()
    return len(n)

@case
def q51_nested_transactions():
    log = []
    @task
    def a(): log.append("a")
    @task
    def b(): log.append("b")
    for t, n in ((a, "a"), (b, "b")):
        t.on_rollback(lambda txn, n=n: log.append("rb-" + n)); t.on_commit(lambda txn, n=n: log.append("c-" + n))
    @flow
    def f(bad):
        with transaction() as txn:
            txn.set("k", 1)
            a()
            with transaction() as inner: log.append(inner.get("k")); b()
            if bad: raise ValueError()
    f(False); log.append("--")
    try: f(True)
    except ValueError: pass
    return log

@case
def q52_rollback_reads_values():
    log = []
    @task
    def w(): get_transaction().set("path", "x")
    @w.on_rollback
    def undo(txn): log.append(txn.get("path", "none"))
    @flow
    def f():
        with transaction(): w(); raise ValueError()
    f(return_state=True)
    return log

@case
def q53_commit_modes_and_keys():
    log = []
    @task
    def a(): log.append("a")
    a.on_rollback(lambda txn: log.append("rb")); a.on_commit(lambda txn: log.append("c"))
    @flow
    def f(mode):
        with transaction(commit_mode=mode): a(); log.append("body")
    for m in (CommitMode.EAGER, CommitMode.LAZY, CommitMode.OFF): log.append(m.value); f(m)
    return log

@case
def q54_transaction_outside_a_flow():
    log = []
    @task
    def a(): log.append("a")
    a.on_rollback(lambda txn: log.append("rb"))
    try:
        with transaction(): a(); raise KeyError()
    except KeyError: log.append("raised")
    with transaction(key="k" + str(uuid.uuid4())) as txn: log.append(txn.is_committed())
    return log

@case
def q55_failed_task_rolls_its_own_back():
    log = []
    @task
    def a(): raise ValueError()
    a.on_rollback(lambda txn: log.append("rb")); a.on_commit(lambda txn: log.append("c"))
    @flow
    def f(): a()
    @flow
    def g():
        with transaction(): a()
    f(return_state=True); g(return_state=True)
    return log

@case
def q56_prints_and_logs():
    import logging
    lines = []
    class H(logging.Handler):
        def emit(self, r): lines.append((r.levelname, r.getMessage()))
    @task(log_prints=True)
    def t(): print("from", "task", sep="-"); get_run_logger().warning("w %s", 1)
    @flow(log_prints=True)
    def f(): print("hello"); get_run_logger().info("info"); t(); u()
    @task
    def u(): print("inherits not")
    h = H()
    for n in ("prefect.flow_runs", "prefect.task_runs", "whenthen.flow_runs", "whenthen.task_runs"): logging.getLogger(n).addHandler(h)
    f()
    return [l for l in lines if l[1] in ("hello", "info", "from-task", "w 1", "inherits not")]

@case
def q57_logger_outside():
    try: get_run_logger(); return None
    except Exception as e: return kind(e), isinstance(e, RuntimeError)

@case
def q58_contexts():
    @task
    def t(): c = TaskRunContext.get(); return c.task.name, c.task_run.name[:2], get_run_context() is c
    @flow
    def f(x): c = FlowRunContext.get(); return c.flow.name, c.parameters, c.flow_run.name != "", t()
    try: get_run_context(); e = None
    except Exception as x: e = kind(x)
    return f(3), e, FlowRunContext.get()

@case
def q59_run_names():
    def named(): return "n-" + str(rt_flow.parameters["x"])
    def tnamed(parameters): return "t-" + str(parameters["x"])
    @flow(flow_run_name=named)
    def f(x): return rt_flow.name, t(x), u(x)
    @task(task_run_name=tnamed)
    def t(x): return rt_task.name
    @task(task_run_name="{x[a]}-{y}")
    def u(x, y=2): return rt_task.name
    return f({"a": 1})

@case
def q60_bad_run_names():
    @flow(flow_run_name="{nope}")
    def f(x): return 1
    @task(task_run_name="{nope}")
    def t(x): return 1
    @flow
    def g(): return t(1)
    out = []
    for c in (lambda: f(1), lambda: g()):
        try: out.append(c())
        except Exception as e: out.append(kind(e))
    for c in (lambda: flow(flow_run_name=3)(len), lambda: task(task_run_name=3)(lambda: 1)):
        try: c(); out.append(None)
        except Exception as e: out.append(kind(e))
    return out

@case
def q61_options_and_attributes():
    @flow(name="F", description="d", version="1", retries=2, retry_delay_seconds=3, timeout_seconds=4, log_prints=True, validate_parameters=False)
    def f(a): "doc"
    @task(name="T", description="d", version="2", tags=["x"], retries=1)
    def t(a): "doc"
    g = f.with_options(name="G", retries=0, version="9")
    @flow
    def h(): "doc of h"
    return f.name, f.description, f.version, f.retries, f.retry_delay_seconds, f.timeout_seconds, g.name, g.retries, f.fn.__name__, f.__name__, isinstance(f, Flow), t.name, t.description, sorted(t.tags), isinstance(t, Task), h.description, h.name, t.fn.__doc__

@case
def q62_refused_definitions():
    out = []
    for c in (lambda: flow(3), lambda: task(3), lambda: flow(lambda wait_for: 1), lambda: task(lambda return_state: 1), lambda: flow(name="a/b")(lambda: 1), lambda: flow(on_failure=3)(lambda: 1), lambda: flow(on_failure=[3])(lambda: 1), lambda: task(on_completion=[3])(lambda: 1), lambda: task(retry_condition_fn=3)(lambda: 1)):
        try: c(); out.append(None)
        except Exception as e: out.append(kind(e))
    return out

@case
def q63_system_exit_and_interrupt():
    @task
    def t(e): raise e
    seen = []
    @flow(on_crashed=[lambda f, r, s: seen.append((s.name, s.message))], on_failure=[lambda f, r, s: seen.append("failed")])
    def f(e): t(e)
    out = []
    for e in (SystemExit(3), KeyboardInterrupt()):
        try: f(e)
        except BaseException as x: out.append(kind(x))
    return out, seen

@case
def q64_system_exit_in_a_submitted_task():
    @task
    def t(): raise SystemExit(3)
    @flow
    def f():
        x = t.submit()
        try: x.result(); return "?"
        except BaseException as e: return kind(e)
    try: return f()
    except BaseException as e: return "out", kind(e)

@case
def q65_retry_condition_that_raises_and_async():
    n = []
    def boom(t, r, s): raise RuntimeError()
    async def yes(t, r, s): return len(n) < 4
    @task(retries=3, retry_condition_fn=boom)
    def a(): n.append("a"); raise ValueError()
    @task(retries=5, retry_condition_fn=yes)
    async def b(): n.append("b"); raise ValueError()
    @flow
    async def f(): a(return_state=True); await b(return_state=True)
    asyncio.run(f(return_state=True))
    return n

@case
def q66_max_workers():
    now, peak = [0], [0]
    lock = threading.Lock()
    @task
    def t(i):
        with lock: now[0] += 1; peak[0] = max(peak[0], now[0])
        time.sleep(0.05)
        with lock: now[0] -= 1
    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def f(): t.map(range(8)).wait()
    f()
    return peak[0]

@case
def q67_flow_in_a_thread_and_a_loop():
    @task
    def t(n): return n + 1
    @flow
    def f(n): return t.submit(n).result()
    out = []
    th = threading.Thread(target=lambda: out.append(f(1))); th.start(); th.join()
    async def main(): return f(2)
    out.append(asyncio.run(main()))
    return out

@case
def q68_tags_of_runs():
    @task(tags=["a"])
    def t(): return sorted(rt_task.tags)
    @flow
    def f():
        with tags("x"):
            with tags("y", "x"): r = t()
        return sorted(rt_flow.tags), r, t()
    with tags("o"): return f()

@case
def q69_flow_run_counts_and_task_counts():
    seen = []
    @task(retries=1)
    def t():
        seen.append((rt_flow.run_count, rt_task.run_count))
        if rt_task.run_count == 1: raise ValueError()
    @flow(retries=1)
    def f():
        t()
        if rt_flow.run_count == 1: raise ValueError()
    f()
    return seen

@case
def q70_functools_and_lambdas():
    g = task(lambda a: a * 2, name="l")
    @flow
    def h(): return g(2), g.submit(3).result()
    class C:
        def __call__(self, a): return a + 1
    c = task(C())
    return h(), g.name, c(1), c.name

@case
def q71_runtime_outside():
    return rt_flow.id, rt_flow.name, rt_flow.parameters, rt_flow.tags, rt_task.id, rt_task.name, rt_flow.run_count

@case
def q72_validate():
    @flow
    def f(a: int, b: str = "x"): ...
    try: f.validate_parameters({"a": "q"}); e = None
    except Exception as x: e = kind(x)
    return f.validate_parameters({"a": "1", "b": "z"}), e

@case
def q73_unawaited_tasks_run():
    done = []
    @task
    def t(): done.append(1)
    @flow
    def f(): t.submit(); time.sleep(0.3)
    f()
    return len(done)

@case
def q74_state_methods():
    s = Completed(data=1)
    f = Failed(message="m")
    @flow
    def g(): return s
    return (s.is_completed(), s.is_final(), f.is_failed(), f.is_final(), s.type.value, kind(get_state_exception(f)), str(s), str(f), Completed().name, g())

@case
def q75_delay_of_flow_and_list_of_exceptions():
    t0 = time.monotonic(); n = []
    @flow(retries=1, retry_delay_seconds=1)
    def f():
        n.append(1)
        if len(n) == 1: raise ValueError()
        return "ok"
    r = f()
    return r, time.monotonic() - t0 >= 1

@case
def q76_parameters_are_not_shared():
    @task
    def grow(l): l.append(1); return l
    @flow
    def f(l: list = []):
        l.append(0); return l
    base = [5]
    a = f(base), base, f(), f()
    @flow
    def g(): x = [1]; grow(x); grow.submit(x).wait(); return x
    return a, g()

@case
def q77_deep_recursion_of_flows():
    @flow
    def f(n): return 0 if n == 0 else 1 + f(n - 1)
    return f(5)

@case
def q78_wait_list_result():
    @task
    def t(n): return n
    @flow
    def f():
        fs = t.map([1, 2]); fs.wait(); a = fs.result()
        w = wait([*fs]); return a, len(w.done), len(w.not_done), kind(fs), isinstance(fs, list)
    return f()

@case
def q79_a_caught_failure_in_a_transaction():
    log = []
    @task
    def a(): log.append("a")
    @task
    def bad(): raise ValueError()
    @task
    def c(): log.append("c")
    for t, n in ((a, "a"), (c, "c")):
        t.on_rollback(lambda txn, n=n: log.append("rb-" + n)); t.on_commit(lambda txn, n=n: log.append("c-" + n))
    @flow
    def f():
        with transaction() as txn:
            a()
            try: bad()
            except ValueError: log.append("caught")
            c()
        return txn.state.value
    return f(), log

@case
def q81_submitted_tasks_in_a_transaction():
    log = []
    @task
    def a(): log.append("a")
    a.on_rollback(lambda txn: log.append("rb")); a.on_commit(lambda txn: log.append("c"))
    @flow
    def f():
        with transaction(): a.submit().wait(); raise ValueError()
    @flow
    def g():
        with transaction(): a.submit().wait(); log.append("body")
    f(return_state=True); log.append("--"); g()
    return log

@case
def q82_hooks_that_fail_in_a_transaction():
    log = []
    def boom(txn): log.append("boom"); raise RuntimeError()
    @task
    def a(): log.append("a")
    @task
    def b(): log.append("b")
    a.on_rollback(lambda txn: log.append("rb-a")); a.on_commit(lambda txn: log.append("c-a")); b.on_commit(boom); b.on_rollback(lambda txn: log.append("rb-b"))
    @flow
    def f():
        with transaction() as txn: a(); b()
        return txn.state.value
    @task
    def c(): log.append("c")
    c.on_rollback(boom); c.on_rollback(lambda txn: log.append("rb-3"))
    @flow
    def g():
        with transaction(): a(); c(); raise ValueError()
    r = f(); log.append("--"); g(return_state=True)
    return r, log

@case
def q83_keyed_transactions():
    out = []
    key = str(uuid.uuid4())
    for _ in range(2):
        with transaction(key=key) as txn:
            out.append(txn.is_committed())
            txn.stage({"a": 1})
    return out

@case
def q84_cached_results_in_a_transaction():
    n = []
    tag = str(uuid.uuid4())
    @task(cache_policy=INPUTS, persist_result=True)
    def t(x): n.append(1); return x
    @flow
    def f(bad):
        with transaction():
            t(tag); t(tag)
            if bad: raise ValueError()
    f(True, return_state=True); one = len(n); f(False); two = len(n); f(False)
    return one, two, len(n)

@case
def q85_a_failing_flow_and_its_submitted_tasks():
    done = []
    @task
    def t(i): time.sleep(2); done.append(i)
    @flow
    def f():
        t.submit(1); time.sleep(1); raise ValueError()
    s = f(return_state=True)
    return s.name, done

@case
def q86_flow_with_positional_only_and_keyword_only():
    @flow
    def f(a: int, /, b: int, *, c: int = 3): return a, b, c
    @task
    def t(a, /, b, *args, c=3, **k): return a, b, args, c, k
    @flow
    def g(): return t(1, 2, 3, c=4, d=5), t.submit(1, 2, 3, d=5).result()
    return f("1", "2"), f(1, b="2", c="4"), g()

@case
def q87_retry_of_a_flow_with_a_failing_subflow():
    n = []
    @flow
    def child():
        n.append(1)
        if len(n) == 1: raise ValueError()
        return len(n)
    @flow(retries=1)
    def parent(): return child()
    return parent(), n

@case
def q88_pydantic_fields_as_defaults():
    @flow
    def f(a: int = pydantic.Field(default=3, description="x"), b: typing.Annotated[int, pydantic.Field(gt=0)] = 1): return a, b
    try: f(1, -1); e = None
    except Exception as x: e = kind(x)
    return f(), f("5"), e

@case
def q89_literal_and_lists_of_models():
    class M(pydantic.BaseModel):
        n: int = 1
    @flow
    def f(l: typing.Literal["a", "b"], ms: list[M], u: int | str, t: tuple[int, str] = (1, "x"), d: dict[str, M] = {}): return l, [m.n for m in ms], u, t, d
    out = [f("a", [{"n": 2}, M()], "7")]
    try: f("c", [], 1)
    except Exception as e: out.append(kind(e))
    return out

@case
def q90_none_for_a_parameter():
    @flow
    def f(a: int = None, b: typing.Optional[int] = None): return a, b
    try: return f()
    except Exception as e: return kind(e)

@case
def q91_states_of_submit_and_map():
    @task
    def t(n):
        if n < 0: raise ValueError(n)
        return n
    @flow
    def f():
        s = t.submit(1, return_state=True); m = t.map([1, -1], return_state=True)
        return (s.name, s.result(), [x.name for x in m])
    return f()

@case
def q92_returned_terminal_states_and_hooks():
    seen = []
    hook = lambda fl, r, s: seen.append(s.name)
    from whenthen.states import Crashed
    @flow(on_completion=[hook], on_failure=[hook], on_cancellation=[hook], on_crashed=[hook])
    def g(n): return (Completed(name="Skipped"), Failed(), Cancelled(), Crashed())[n]
    return [g(n, return_state=True).name for n in range(4)], seen

@case
def q93_a_task_that_is_cancelled_or_crashed_by_its_state():
    @task(retries=1)
    def t(n): runs.append(n); return (Cancelled(), Failed())[n]
    runs = []
    @flow
    def f(): return [t(0, return_state=True).name, t(1, return_state=True).name]
    return f(), runs

@case
def q94_allow_failure_inside_containers_and_wait_for():
    @task
    def bad(): raise ValueError("x")
    @task
    def t(*v): return [kind(x) for x in v]
    @flow
    def f():
        b = bad.submit()
        a = t.submit(allow_failure(b), 1).result()
        c = t.submit(1, wait_for=[allow_failure(b)]).result()
        d = t.submit([b], return_state=True)
        return a, c, d.name
    return f()

@case
def q95_runtime_in_submitted_and_mapped_runs():
    @task(task_run_name="r-{n}", tags=["t"])
    def t(n): return rt_task.name, rt_task.parameters, sorted(rt_task.tags), rt_flow.name
    @flow(flow_run_name="fl")
    def f():
        with tags("w"): a = t.submit(1); b = t.map([2, 3])
        return a.result(), b.result()
    return f()

@case
def q96_async_retries_and_timeouts():
    n = []
    @task(retries=2, retry_delay_seconds=[0.1, 0.2])
    async def t():
        n.append(time.monotonic())
        if len(n) < 3: raise ValueError()
        return rt_task.run_count
    @flow(retries=1)
    async def f():
        r = await t()
        if rt_flow.run_count == 1: raise ValueError()
        return r, rt_flow.run_count
    r = asyncio.run(f())
    return r, n[2] - n[0] >= 0.3, len(n)

@case
def q97_async_generators():
    @flow
    async def g(n: int):
        for i in range(n): yield i
    @task
    async def t():
        yield 1
        raise ValueError("x")
    async def main():
        out = [x async for x in g("3")]
        try: [out.append(x) async for x in t()]
        except ValueError: out.append("raised")
        return out
    return asyncio.run(main())

@case
def q98_exceptions_keep_their_class_and_cause():
    class Own(Exception): pass
    @task
    def t():
        try: raise KeyError("k")
        except KeyError as e: raise Own("o") from e
    @flow
    def child(): t()
    @flow
    def f(): child()
    try: f()
    except Own as e: return kind(e), str(e), kind(e.__cause__)

@case
def q99_the_same_task_in_several_flows_and_with_several_options():
    @task
    def t(n): return rt_task.name[:1], rt_task.task_name, n
    u = t.with_options(task_run_name="u-{n}", tags=["x"])
    @flow
    def a(): return t(1), u(2), u.submit(3).result()
    @flow
    def b(): return t.map([1]).result(), a()
    return a(), b()

@case
def q100_failed_states_of_futures():
    @task
    def bad(): raise ValueError("x")
    @flow
    def f():
        b = bad.submit(); b.wait()
        out = [b.state.is_failed(), b.state.message, kind(b.state.result(raise_on_failure=False))]
        try: b.result()
        except ValueError as e: out.append(str(e))
        return out
    return f()

if __name__ == "__main__":
    for fn in CASES:
        if only and fn.__name__.split("_")[0] not in only: continue
        t = time.monotonic()
        try: out = fn()
        except BaseException as e: out = "EXC " + "".join(traceback.format_exception_only(e)).strip(); traceback.print_exc()
        print(f"RESULT {fn.__name__}: {out!r}  ({time.monotonic()-t:.1f}s)", flush=True)
