"""The run of a flow, from its arguments to its final state, as a generator of steps. See `task_engine`, whose sibling it is."""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Generator, Iterable
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from whenthen.flows.caching.result_store import ResultStore, persists_by_default
from whenthen.flows.clock import utc_now
from whenthen.flows.definitions.run_names import named
from whenthen.flows.execution.cancel_scope import CancelScope, Stopped
from whenthen.flows.execution.prints import LogPrints
from whenthen.flows.execution.run_contexts import FLOW, TAGS, TASK, FlowRunContext, current_run
from whenthen.flows.execution.run_logging import engine_logger
from whenthen.flows.execution.run_moves import UNSET, RunCall, call_hooks, enter, log, report, waited_for
from whenthen.flows.execution.run_records import FlowRun, new_id, random_name
from whenthen.flows.execution.steps import END, Call, Emit, Next, Pause, Step, WaitFor
from whenthen.flows.flow_errors import FlowRunTimeoutError, SerializationError, Signal, UpstreamTaskError
from whenthen.flows.flow_errors import Pause as PauseSignal
from whenthen.flows.futures.inputs import futures_in, resolved, states_for_futures
from whenthen.flows.reporting.cancellation_request import is_cancellation_asked
from whenthen.flows.reporting.outside_pause import WaitWhilePaused, is_pause_asked
from whenthen.flows.states.moves import RetryRule, delay_before_retry
from whenthen.flows.states.outcomes import crashed_state, failed_state, state_of_value, timed_out_state
from whenthen.flows.states.state import NO_DATA, AwaitingRetry, State, StateType, Suspended, result_of

if TYPE_CHECKING:
    from whenthen.flows.definitions.flow_definition import Flow
    from whenthen.flows.execution.runners import TaskRunner

__all__ = ["FlowCall"]


class FlowCall(RunCall):
    """One run of a flow."""

    __slots__ = ("flow",)

    run: FlowRun

    def __init__(self, flow: Flow[..., Any], parameters: dict[str, Any], wait_for: Iterable[Any] | None) -> None:
        above = FLOW.get()
        self.flow = flow
        self.parameters = parameters
        self.wait_for = None if wait_for is None else waited_for(wait_for)
        self.scope = CancelScope(None if above is None else above.scope)
        self.returned: Any = UNSET
        self.error: BaseException | None = None
        self.attempt = 0
        self.run = FlowRun(
            flow_name=flow.name,
            flow_version=flow.version,
            flow_id=flow.id,
            parameters=parameters,
            id=new_id(),
            name=random_name(),
            parent=current_run(),
            tags=TAGS.get(),
            state=State(StateType.PENDING),
        )

    def result(self) -> Any:
        """As of any run; of a state that the function returned, that state's result."""
        value = super().result()
        if self.returned is not UNSET and not isinstance(value, State):
            return value
        state = self.run.state
        return None if state.is_pending() else result_of(state)

    def steps(self) -> Generator[Step, Any, FlowCall]:
        """The engine."""
        report(self.run, self.run.state)
        try:
            if (yield from self._is_ready()):
                yield from self._attempts()
        except GeneratorExit:
            self.scope.cancel()
            raise
        except Stopped as stop:
            yield from self._stopped(stop)
        except Exception as error:  # a name that can not be made
            self.error = error
            if not self.run.state.is_final():  # the stack may have run out after that
                enter(self.run, self._state_of(error))
            yield from call_hooks(self.flow.on_failure_hooks, self.flow, self.run, self.run.state)
        except CancelledError as error:
            # a coroutine that a worker's request cancelled; another cancellation is a crash, as in Prefect
            yield from self._stopped(error) if is_cancellation_asked() else self._crashed(error)
        except BaseException as error:
            yield from self._crashed(error)
        self.scope.leave()
        # a failure is told also where it is not raised: with `return_state=True`
        log(
            self.run,
            logging.ERROR if self.run.state.is_failed() else logging.DEBUG,
            "Finished in state %s",
            self.run.state,
        )
        return self

    def _stopped(self, error: BaseException) -> Generator[Step, Any, None]:
        self.error = error
        self.scope.cancel()
        if not self.run.state.is_final():
            enter(self.run, State(StateType.CANCELLED, message="Flow run was cancelled."))
            yield from call_hooks(self.flow.on_cancellation_hooks, self.flow, self.run, self.run.state)

    def _crashed(self, error: BaseException) -> Generator[Step, Any, None]:
        self.error = error
        self.scope.cancel()
        if isinstance(error, PauseSignal) and self.run.state.is_running():
            enter(self.run, Suspended(message=str(error)))
        elif not self.run.state.is_final() and not isinstance(error, Signal):
            enter(self.run, crashed_state(error, now=utc_now()))
            log(self.run, logging.ERROR, "Crash detected! %s", self.run.state.message)
            yield from call_hooks(self.flow.on_crashed_hooks, self.flow, self.run, self.run.state)

    def _is_ready(self) -> Generator[Step, Any, bool]:
        needed = futures_in(self.parameters) + futures_in(self.wait_for)
        if needed:
            yield WaitFor(needed)
        try:
            self.parameters = {name: resolved(value) for name, value in self.parameters.items()}
            resolved(self.wait_for)
        except UpstreamTaskError as problem:
            enter(self.run, State(StateType.PENDING, "NotReady", message=str(problem)))
            return False
        return True

    def _attempts(self) -> Generator[Step, Any, None]:
        flow, run = self.flow, self.run
        if flow.should_validate_parameters:
            try:
                self.parameters = flow.signature.validated(self.parameters)
            except Exception as error:
                self.error = error
                enter(run, failed_state(error, what="Validation of flow parameters failed with error:", now=utc_now()))
                yield from call_hooks(flow.on_failure_hooks, flow, run, run.state)
                return
        run.parameters = self.parameters
        parent = FLOW.get()
        log_prints = flow.log_prints if flow.log_prints is not None else parent is not None and parent.log_prints
        context = FlowRunContext(
            flow=flow,
            flow_run=run,
            parameters=self.parameters,
            task_runner=flow.task_runner.duplicate(),
            scope=self.scope,
            log_prints=log_prints,
            persist_result=persists_by_default() if flow.persist_result is None else flow.persist_result,
            start_time=utc_now(),
        )
        tokens = FLOW.set(context), TASK.set(None)
        try:
            if flow.flow_run_name is not None:
                run.name = named(flow.flow_run_name, self.parameters, option="flow_run_name")
            with LogPrints(log_prints) if log_prints else nullcontext():
                while True:
                    self.scope.check()
                    if is_pause_asked():
                        yield WaitWhilePaused()
                        self.scope.check()
                    run.pauses = 0
                    enter(run, State(StateType.RUNNING))
                    yield from call_hooks(flow.on_running_hooks, flow, run, run.state)
                    log(run, logging.DEBUG, "Beginning flow run %r for flow %r", run.name, flow.name)
                    delay = yield from self._attempt(context)
                    if delay is None:
                        break
                    if delay > 0:
                        yield Pause(delay, self.scope)
                    self.scope.leave()
                    self.scope = context.scope = CancelScope(None if parent is None else parent.scope)
                    context.task_runner = flow.task_runner.duplicate()
                if hooks := flow.hooks_for(run.state):
                    yield from call_hooks(hooks, flow, run, run.state)
        finally:
            FLOW.reset(tokens[0])
            TASK.reset(tokens[1])

    def _attempt(self, context: FlowRunContext) -> Generator[Step, Any, float | None]:
        """One try. Gives the seconds after which to try again, or None when the run has ended."""
        run = self.run
        try:
            value = yield from self._call(context.task_runner)
            if waited := futures_in(value):
                yield WaitFor(waited)
                value = states_for_futures(value)
            state = state_of_value(value, now=utc_now())
            if state._data is NO_DATA and state.is_final():
                state._data = None
        except Exception as error:
            state = self._state_of(error)
            self.error = error
        else:
            self.error = None
            self.returned = value
        if state.is_failed():
            rule = RetryRule(self.flow.retries, self.flow.retry_delay_seconds)
            delay = delay_before_retry(rule, self.attempt)
            if delay is not None:
                self.attempt += 1
                log(run, logging.INFO, "Flow run failed: %s - Retry %s/%s will start %s", state.message, self.attempt, self.flow.retries,
                    f"{delay} second(s) from now" if delay else "immediately")  # fmt: skip
                enter(run, AwaitingRetry(scheduled_time=utc_now() + timedelta(seconds=delay)))
                self.error, self.returned = None, UNSET
                return delay
            if self.error is not None and run.parent is None:
                log(run, logging.DEBUG, "Encountered exception during execution: %r", self.error, error=self.error)
        enter(run, state)
        self._keep(state)
        return None

    def _call(self, runner: TaskRunner) -> Generator[Step, Any, Any]:
        """Call the function, and see to it that nothing that it submitted is left running."""
        flow = self.flow
        args, kwargs = flow.signature.call_arguments(self.parameters)
        try:
            if flow.isgenerator:
                yield from self._generate(flow.fn(*args, **kwargs))
                value: Any = None
            else:
                value = yield Call(
                    flow.fn, args, kwargs, limit_s=flow.timeout_seconds, expired=self._too_long, scope=self.scope
                )
            self.scope.check()
        except BaseException as error:
            if not isinstance(error, Exception):
                self.scope.cancel()
            if not self.scope.cancelled:
                runner.drop_what_was_not_begun()
                while unfinished := runner.unfinished():
                    yield WaitFor(unfinished)
            runner.close(self.scope.cancelled)
            raise
        try:
            while unfinished := runner.unfinished():
                yield WaitFor(unfinished)
        finally:
            runner.close(self.scope.cancelled)
        return value

    def _generate(self, generator: Any) -> Generator[Step, Any, None]:
        sent: Any = None
        while (item := (yield Next(generator, sent))) is not END:
            sent = yield Emit(item)

    def _too_long(self) -> FlowRunTimeoutError:
        return FlowRunTimeoutError(f"Flow run exceeded timeout of {self.flow.timeout_seconds} second(s)")

    def _state_of(self, error: Exception) -> State[Any]:
        now = utc_now()
        if isinstance(error, FlowRunTimeoutError) and self.scope.cancelled:
            return timed_out_state(error, message=str(error), now=now)
        if isinstance(error, TimeoutError):
            return timed_out_state(error, message=f"Flow run failed due to timeout: {error!r}", now=now)
        return failed_state(error, what="Flow run encountered an exception:", now=now)

    def _keep(self, state: State[Any]) -> None:
        """Write the result of a flow that asked for it, under the id of the run."""
        if not self.flow.persist_result or not state.is_completed():
            return
        store = ResultStore(self.flow.result_storage, self.flow.result_serializer)
        try:
            store.write(store.path(str(self.run.id)), state.data)
        except (SerializationError, OSError) as problem:
            engine_logger().warning("the result of flow run %r is not kept: %s", self.run.name, problem)
