"""Actions on automations, through the `Automations` port, and the one that does nothing."""

from __future__ import annotations

from dataclasses import dataclass

from whenthen.actions.attempts import ActionResult, Call, automation_id
from whenthen.actions.fields import Field, compile_optional_text
from whenthen.schemas.actions import DoNothing, PauseAutomation, ResumeAutomation

__all__ = ["AutomationHandler", "NothingHandler"]


@dataclass(frozen=True, slots=True)
class AutomationHandler:
    """pause-automation, resume-automation; without a name it is the automation that fired."""

    pause: bool
    automation: Field[str] | None

    @classmethod
    def compile(cls, action: PauseAutomation | ResumeAutomation) -> AutomationHandler:
        return cls(isinstance(action, PauseAutomation), compile_optional_text(action.automation, "automation"))

    async def run(self, call: Call) -> ActionResult:
        name = call.firing.automation if self.automation is None else self.automation.render(call)
        automations = call.ports.automations
        await (automations.pause if self.pause else automations.resume)(name)
        # the role differs from "automation", which is the resource of the outcome itself
        return ActionResult(
            details={"automation": name}, related=({"id": automation_id(name), "role": "target", "name": name},)
        )


@dataclass(frozen=True, slots=True)
class NothingHandler:
    """do-nothing: the firing and its outcome are all there is."""

    @classmethod
    def compile(cls, action: DoNothing) -> NothingHandler:
        return cls()

    async def run(self, call: Call) -> ActionResult:
        return ActionResult()
