"""The run of a task, from its arguments to its final state, as a generator of steps. Whether it is sync or async is its driver's
business; here are the rules: wait for what it needs, look for a kept result, call, try again, commit.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from whenthen.flows.caching.cache_policy import NoCache
from whenthen.flows.caching.result_store import ResultStore, persists_by_default
from whenthen.flows.caching.transaction import Transaction
from whenthen.flows.clock import utc_now
from whenthen.flows.definitions.run_names import named
from whenthen.flows.execution.cancel_scope import CancelScope, Stopped
from whenthen.flows.execution.child_process import ChildCall
from whenthen.flows.execution.prints import LogPrints
from whenthen.flows.execution.run_contexts import FLOW, TAGS, TASK, FlowRunContext, TaskRunContext, current_run
from whenthen.flows.execution.run_moves import (
    UNSET,
    RunCall,
    call_hooks,
    enter,
    log,
    report,
    report_untold,
    waited_for,
)
from whenthen.flows.execution.run_records import TaskRun, new_id
from whenthen.flows.execution.steps import END, Call, Emit, Next, Pause, Step, WaitFor
from whenthen.flows.flow_errors import Signal, TaskRunTimeoutError, UpstreamTaskError
from whenthen.flows.futures.inputs import futures_in, resolved
from whenthen.flows.reporting.outside_pause import WaitWhilePaused, is_pause_asked
from whenthen.flows.states.moves import RetryRule, delay_before_retry
from whenthen.flows.states.outcomes import crashed_state, failed_state, state_of_value, timed_out_state
from whenthen.flows.states.state import NO_DATA, AwaitingRetry, State, StateType

if TYPE_CHECKING:
    from whenthen.flows.definitions.task_definition import Task

__all__ = ["TaskCall"]


class TaskCall(RunCall):
    """One run of a task."""

    __slots__ = ("dropped", "flow", "in_child", "needed", "task")

    run: TaskRun

    def __init__(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[Any] | None,
        *,
        in_child: bool = False,
    ) -> None:
        flow = FLOW.get()
        self.task = task
        self.parameters = parameters
        self.wait_for = None if wait_for is None else waited_for(wait_for)
        self.flow: FlowRunContext | None = flow
        self.scope = CancelScope() if flow is None else flow.scope
        self.returned: Any = UNSET
        self.error: BaseException | None = None
        self.attempt = 0  #: how often it was tried again
        self.in_child = in_child  #: the function is called in a process of its own
        self.dropped = False  #: the flow failed before this began
        id = new_id()
        tags = TAGS.get()
        self.run = TaskRun(
            task_name=task.name,
            task_key=task.task_key,
            task_version=task.version,
            flow_run_id=None if flow is None else flow.flow_run.id,
            id=id,
            name=task.name if flow is None else f"{task.name}-{id.int >> 116:03x}",
            parent=current_run(),
            tags=task.tags | tags if tags or task.tags else [],
            state=State(StateType.PENDING),
        )
        #: the futures among the arguments, as they are now: a list that is changed later changes nothing
        self.needed = [future for value in parameters.values() for future in futures_in(value)]
        if self.wait_for is not None:
            self.needed += futures_in(self.wait_for)
        if self.needed:
            self.run.waiting_for = tuple(self.needed)
            self.run.task_inputs = {"upstream": [future.task_run_id for future in self.needed]}

    def steps(self) -> Generator[Step, Any, TaskCall]:
        """The engine."""
        if self.needed or self.task.task_run_name is not None:
            report(self.run, self.run.state)
        else:  # it runs in a moment
            self.run.untold = self.run.state
        try:
            try:
                if (yield from self._is_ready()):
                    yield from self._attempts()
            finally:
                self.parameters = {}  # the run has ended; what it was given may be large
                report_untold(self.run)
        except GeneratorExit:
            raise
        except Stopped as stop:
            self.error = stop
            if not self.run.state.is_final():
                enter(self.run, State(StateType.CANCELLED, message="The flow of this task run was cancelled."))
        except Exception as error:  # a name that can not be made, a hook's own refusal
            self.error = error
            if not self.run.state.is_final():  # the stack may have run out after that
                enter(self.run, self._state_of(error))
        except BaseException as error:
            self.error = error
            if not self.run.state.is_final() and not isinstance(error, Signal):
                enter(self.run, crashed_state(error, now=utc_now()))
                log(self.run, logging.ERROR, "Crash detected! %s", self.run.state.message)
        return self

    def _is_ready(self) -> Generator[Step, Any, bool]:
        """Wait for the futures among the arguments; False when one of them failed."""
        if self.needed:
            yield WaitFor(self.needed)
            self.run.waiting_for = ()
            self.needed = []
        self.scope.check()
        if self.dropped:
            raise Stopped
        try:
            self.parameters = {name: resolved(value) for name, value in self.parameters.items()}
            if self.wait_for is not None:
                resolved(self.wait_for)
        except UpstreamTaskError as problem:
            enter(self.run, State(StateType.PENDING, "NotReady", message=str(problem)))
            return False
        return True

    def _attempts(self) -> Generator[Step, Any, None]:
        task, run = self.task, self.run
        if self.flow is not None:
            run.flow_run_run_count = self.flow.flow_run.run_count
        log_prints = task.log_prints
        if log_prints is None:
            log_prints = self.flow is not None and self.flow.log_prints
        context = TaskRunContext(
            task=task,
            task_run=run,
            parameters=self.parameters,
            log_prints=log_prints,
            persist_result=self._persists(),
            start_time=utc_now(),
        )
        token = TASK.set(context)
        try:
            if task.task_run_name is not None:
                run.name = named(task.task_run_name, self.parameters, option="task_run_name")
            with LogPrints(True) if log_prints else NO_PRINTS:
                while True:
                    self.scope.check()
                    if is_pause_asked():
                        report_untold(run)
                        yield WaitWhilePaused()
                        self.scope.check()
                    enter(run, State(StateType.RUNNING, "Retrying" if self.attempt else None))
                    if task.on_running_hooks:
                        yield from call_hooks(task.on_running_hooks, task, run, run.state)
                    delay = yield from self._attempt(context)
                    if delay is None:
                        break
                    if delay > 0:
                        yield Pause(delay, self.scope)
                state = run.state
                if state.is_completed():
                    hooks = task.on_completion_hooks
                elif state.is_failed():
                    # told also where it is not raised: with `return_state=True`, and of a future that nobody asks
                    log(run, logging.ERROR, "Finished in state %s", state)
                    hooks = task.on_failure_hooks
                else:
                    return
                if hooks:
                    yield from call_hooks(hooks, task, run, state)
        finally:
            TASK.reset(token)

    def _attempt(self, context: TaskRunContext) -> Generator[Step, Any, float | None]:
        """One try. Gives the seconds after which to try again, or None when the run has ended."""
        task, run = self.task, self.run
        made = self._transaction(context)
        made.begin()
        failure: Exception | State[Any] | None = None
        try:
            value = made.stored[0] if made.stored is not None else (yield from self._call())
            if isinstance(value, State) and value.is_failed():
                failure = value
        except GeneratorExit:
            made.leave()
            raise
        except Exception as error:
            failure = error
        except BaseException as error:
            made.end(error)
            raise
        if failure is not None:
            delay = yield from self._delay_before_retry(failure)
            if delay is not None:  # what is tried again is not rolled back
                made.leave()
                return delay
        if isinstance(failure, Exception):
            self.error = failure
            made.end(failure)
            enter(run, self._state_of(failure))
            return None
        self.returned = value
        state = state_of_value(value, now=utc_now())
        if state._data is NO_DATA and state.is_final():
            state._data = None
        if state.is_completed():
            if made.stored is not None:
                state.name = "Cached"
            made.stage(state._data, task.on_rollback_hooks, task.on_commit_hooks)
            enter(run, state)
            made.end()
        else:
            enter(run, state)
            made.end(UNSUCCESSFUL)
        return None

    def _call(self) -> Generator[Step, Any, Any]:
        task = self.task
        args, kwargs = task.signature.call_arguments(self.parameters)
        if self.in_child:
            fn: Any = (lambda *given, **named: list(task.fn(*given, **named))) if task.isgenerator else task.fn
            return (
                yield ChildCall(
                    fn,
                    args,
                    kwargs,
                    name=self.run.name,
                    limit_s=task.timeout_seconds,
                    expired=self._too_long,
                    scope=self.scope,
                )
            )
        if not task.isgenerator:
            return (yield Call(task.fn, args, kwargs, limit_s=task.timeout_seconds, expired=self._too_long))
        generator = task.fn(*args, **kwargs)
        items: list[Any] = []
        sent: Any = None
        while (item := (yield Next(generator, sent))) is not END:
            items.append(item)
            sent = yield Emit(item)
        return items

    def _too_long(self) -> TaskRunTimeoutError:
        return TaskRunTimeoutError(f"Task run exceeded timeout of {self.task.timeout_seconds} second(s)")

    def _state_of(self, error: Exception) -> State[Any]:
        now = utc_now()
        if isinstance(error, TaskRunTimeoutError):
            return timed_out_state(error, message=str(error), now=now)
        if isinstance(error, TimeoutError):
            return timed_out_state(error, message=f"Task run failed due to timeout: {error!r}", now=now)
        return failed_state(error, what="Task run encountered an exception", now=now)

    def _delay_before_retry(self, failure: Exception | State[Any]) -> Generator[Step, Any, float | None]:
        """Whether and when to try again after `failure`; enters the state that says so."""
        task, run = self.task, self.run
        rule = RetryRule(task.retries, task.retry_delay_seconds, task.retry_jitter_factor)
        delay = delay_before_retry(rule, self.attempt)
        kind = "state" if isinstance(failure, State) else "exception"
        if delay is None:
            if task.retries:
                log(run, logging.ERROR, "Task run failed with %s: %r - Retries are exhausted", kind, failure)
            return None
        if task.retry_condition_fn is not None:
            state = failure if isinstance(failure, State) else self._state_of(failure)
            try:
                if not (yield Call(task.retry_condition_fn, (task, run, state))):
                    return None
            except Exception as error:
                log(
                    run,
                    logging.ERROR,
                    "An error was encountered while running retry_condition_fn; the run is not tried again",
                    error=error,
                )
                return None
        self.attempt += 1
        when = f"{delay} second(s) from now" if delay else "immediately"
        log(
            run,
            logging.INFO,
            "Task run failed with %s: %r - Retry %s/%s will start %s",
            kind,
            failure,
            self.attempt,
            task.retries,
            when,
        )
        if delay:
            enter(run, AwaitingRetry(scheduled_time=utc_now() + timedelta(seconds=delay)))
        return delay

    def _persists(self) -> bool:
        if self.task.persist_result is not None:
            return self.task.persist_result
        return persists_by_default() if self.flow is None else self.flow.persist_result

    def _transaction(self, context: TaskRunContext) -> Transaction:
        """The transaction of one try: with the place of its kept result, if it is to have one."""
        task = self.task
        if not context.persist_result:
            return Transaction()
        policy = task.cache_policy
        storage: Any = task.result_storage
        level = None if policy is None else policy.isolation_level
        if storage is None and policy is not None:
            storage = policy.key_storage
        if storage is None and self.flow is not None:
            storage = self.flow.flow.result_storage
        store = ResultStore(storage, task.result_serializer)
        key, path = None, None
        if task.result_storage_key is not None:
            from whenthen.flows.runtime_values import flow_run, task_run

            key = task.result_storage_key.format(flow_run=flow_run, task_run=task_run, parameters=self.parameters)
            path = store.named_path(key)
        elif policy is not None and not isinstance(policy, NoCache):
            try:
                key = policy.compute_key(context, self.parameters, {} if self.flow is None else self.flow.parameters)
            except Exception as problem:
                log(
                    self.run,
                    logging.WARNING,
                    "No cache key can be made, so the result is neither looked for nor kept: %s",
                    problem,
                )
            if key is not None:
                path = store.path(key)
        made = Transaction(
            key=key,
            store=store,
            path=path,
            isolation_level=level,
            overwrite=task.refreshes_cache(),
            write_on_commit=path is not None,
        )
        if task.cache_expiration is not None:
            made.expires = utc_now() + task.cache_expiration
        self.run.state.state_details.cache_key = key
        return made


NO_PRINTS = nullcontext()
#: rolls back the transaction of a task that returned an unsuccessful state
UNSUCCESSFUL = RuntimeError("the task returned an unsuccessful state")
