"""Actions on automations, through the `Automations` port, and the one that does nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from whenthen.actions.attempts import ActionResult, Call, automation_id
from whenthen.actions.fields import Field, compile_optional_text
from whenthen.schemas.actions import DoNothing, PauseAutomation, ResumeAutomation
from whenthen.schemas.times import format_time

__all__ = ["AutomationHandler", "NothingHandler"]

MAX_REASON = 1000  #: characters of the reason of a pause that are kept


@dataclass(frozen=True, slots=True)
class AutomationHandler:
    """pause-automation, resume-automation; without a name it is the automation that fired."""

    pause: bool
    automation: Field[str] | None
    lasts: timedelta | None = None
    reason: Field[str] | None = None

    @classmethod
    def compile(cls, action: PauseAutomation | ResumeAutomation) -> AutomationHandler:
        automation = compile_optional_text(action.automation, "automation")
        if isinstance(action, ResumeAutomation):
            return cls(False, automation)
        return cls(True, automation, action.lasts, compile_optional_text(action.reason, "reason"))

    async def run(self, call: Call) -> ActionResult:
        name = call.firing.automation if self.automation is None else self.automation.render(call)
        automations = call.ports.automations
        details = {"automation": name}
        if self.pause:
            until = None if self.lasts is None else call.now + self.lasts
            reason = "" if self.reason is None else self.reason.render(call)
            await automations.pause(
                name, until=until, reason=reason[:MAX_REASON], by=f"automation {call.firing.automation}"
            )
            if until is not None:
                details["until"] = format_time(until)
        else:
            await automations.resume(name)
        # the role differs from "automation", which is the resource of the outcome itself
        return ActionResult(details=details, related=({"id": automation_id(name), "role": "target", "name": name},))


@dataclass(frozen=True, slots=True)
class NothingHandler:
    """do-nothing: the firing and its outcome are all there is."""

    @classmethod
    def compile(cls, action: DoNothing) -> NothingHandler:
        return cls()

    async def run(self, call: Call) -> ActionResult:
        return ActionResult()
