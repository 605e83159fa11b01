"""What each view shows in a pane, as parts and as what is on the page."""

from typing import Any

from dash import dcc, html

from tbtt_interp.errors import TbttError
from tbtt_interp.explore import pane as words
from tbtt_interp.explore.answer import answer_parts
from tbtt_interp.explore.attention import attention_parts
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.elements import figure, message
from tbtt_interp.explore.ladder import ladder_part
from tbtt_interp.explore.parts import Part
from tbtt_interp.explore.patching import patched_of, patching_parts
from tbtt_interp.explore.probing import Jobs, job_of, probes_part, reading_part
from tbtt_interp.explore.scene import Scene, scene_of
from tbtt_interp.explore.state import LONGEST, PANES, State

POLL = 700  # ms between two looks at a table in the making


def _controls(scene: Scene, state: State, pane: str) -> list[Any]:
    """What is chosen with, below the answer: it is there whatever has been chosen."""
    settings = state.panes[PANES.index(pane)]
    if state.view == "attention":
        return words.heads_picker(scene, settings, pane)
    if state.view == "answer":
        return [words.characters(scene, settings, pane)]
    return [words.places(scene, settings, pane)] if state.view == "probes" else []


class Views:
    """The explorer without its server: from a state to what is shown of it."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.jobs = Jobs()

    def parts(self, state: State, pane: str) -> list[Part]:
        """The figures of a pane, or of the page where there is one for both.

        Raises:
            TbttError: if there is nothing to show, with the reason.
        """
        if pane == "page":
            return [ladder_part(self.catalogue, state)[0]]
        settings = state.panes[PANES.index(pane)]
        if state.view == "patching":
            found = patched_of(self.catalogue, settings, state.prompt, state.corrupt)
            return patching_parts(found, settings)
        scene = scene_of(self.catalogue, settings, state.prompt)
        if state.view == "attention":
            return attention_parts(scene, settings, state.shown)
        if state.view == "answer":
            return answer_parts(scene, settings)
        if state.view == "probes":
            return self._probes(scene, state, pane)
        return []

    def _probes(self, scene: Scene, state: State, pane: str) -> list[Part]:
        settings = state.panes[PANES.index(pane)]
        reading = [reading_part(scene, settings.probe)] if settings.probe else []
        try:
            job = job_of(self.jobs, scene, settings.place)
        except TbttError:
            if reading:  # which one model is enough for
                return reading
            raise
        if job.problem and not reading:
            raise TbttError(job.problem)
        return ([] if job.table is None else [probes_part(job.table, settings)]) + reading

    def part(self, state: State, pane: str, name: str) -> Part:
        """One figure of a pane by its name.

        Raises:
            TbttError: if it is not on screen.
        """
        for part in self.parts(state, pane):
            if part.name == name:
                return part
        raise TbttError(f"there is no figure '{name}' in pane {pane} of this view: reload the page")

    def provenance(self, state: State, pane: str, part: Part) -> dict[str, Any]:
        """What a figure is of, for who has it alone."""
        if not part.of:
            return {}
        settings = state.panes[PANES.index(pane)]
        which = self.catalogue.which(settings.run, settings.seed, settings.step)
        found: dict[str, Any] = {"run": which.run, "seed": which.seed, "step": which.step}
        found["prompt"] = repr(self.catalogue.run(which.run).tasks[0].complete_prompt(state.prompt))
        found["corrupted"] = repr(state.corrupt)
        if settings.cuts:
            found["cut"] = " ".join(map(str, settings.cuts))
        return {name: value for name, value in found.items() if name in part.of}

    def body(self, state: State, pane: str, address: str) -> list[Any]:
        """What stands in a pane; where something is wrong, what is wrong."""
        settings = state.panes[PANES.index(pane)]
        try:
            run = self.catalogue.run(settings.run)
            which = self.catalogue.which(settings.run, settings.seed, settings.step)
            task = run.tasks[run.seed_index(which.seed)]
            for prompt in (state.prompt, *[state.corrupt] * (state.view == "patching")):
                text = task.complete_prompt(prompt)
                if set(text) - task.vocabulary.index.keys():
                    return words.unreadable(text, task)
            scene = scene_of(self.catalogue, settings, state.prompt)
        except TbttError as error:
            return [message(str(error))]
        found: list[Any] = [words.strip(scene, settings, pane), words.answer(scene, pane)]
        if len(state.prompt) == LONGEST:
            found.insert(0, message(f"Of a prompt the last {LONGEST} characters are kept.", "note"))
        found += _controls(scene, state, pane)
        try:
            found += self._result(scene, state, pane)
            found += [
                figure(part, pane, address, self.provenance(state, pane, part))
                for part in self.parts(state, pane)
            ]
        except TbttError as error:
            found.append(message(str(error)))
        return found

    def _result(self, scene: Scene, state: State, pane: str) -> list[Any]:
        """What stands between the controls and the figures."""
        settings = state.panes[PANES.index(pane)]
        if state.view == "patching":
            found = patched_of(self.catalogue, settings, state.prompt, state.corrupt)
            return [words.patched(found, settings, pane)]
        if state.view != "probes":
            return []
        try:
            job = job_of(self.jobs, scene, settings.place)
        except TbttError as error:
            return [message(str(error))] if settings.probe else []  # else its figures say so
        if job.problem and settings.probe:
            return [message(job.problem)]
        if job.is_done:
            return []
        return [
            message("Probing every model of this run. This is made once "
                    "and kept while the explorer runs.", "note"),
            dcc.Interval(id={"type": "tick", "pane": pane}, interval=POLL),
        ]  # fmt: skip

    def shared(self, state: State, address: str) -> list[Any]:
        """What stands above both panes."""
        if state.view != "ladder":
            return []
        try:
            part, problems = ladder_part(self.catalogue, state)
        except TbttError as error:
            return [message(str(error))]
        notes = [html.Li(problem) for problem in problems]
        return [figure(part, "page", address),
                *([html.Details([html.Summary(f"{len(notes)} not shown"), html.Ul(notes)])]
                  if notes else [])]  # fmt: skip
