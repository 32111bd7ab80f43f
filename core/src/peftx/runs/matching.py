"""Whether a method fits a task, decided from their descriptors alone: no torch, no data, no model."""

from __future__ import annotations

from collections.abc import Sequence

from peftx.plugins.descriptors import MethodSpec, TaskSpec

__all__ = ["RUN", "why_not"]

#: Kinds of methods that a task runs; procedures and codecs are brought by commands of their packs.
RUN = ("adapter", "model")


def why_not(method: MethodSpec, task: TaskSpec) -> str | None:
    """Return one sentence on why `method` cannot run on `task`, or None when nothing speaks against it.

    An empty need asks for nothing; an empty offer of sites means the task cannot know (any model), so
    attaching decides.
    """
    if method.kind not in RUN:
        return (
            f"{method.name} is a {method.kind}, and {task.name} can only run methods of kind {_words(RUN, 'or')}; "
            "`peftx list` shows the kind of every method"
        )
    if method.kind == "model" and method.name.partition(".")[0] != task.name.partition(".")[0]:
        return f"{method.name} is a model of its own domain, and {task.name} is of another: it cannot be compared there"
    if method.kind == "model" and method.tasks and task.name not in method.tasks:
        return f"{method.name} is a model to compare with on {_words(method.tasks, 'and')}, and not on {task.name}"
    needs, offers = method.needs, task.offers
    if needs.sites and offers.sites and not set(needs.sites) & set(offers.sites):
        return (
            f"{method.name} adapts {_words(needs.sites, 'or')} sites, "
            f"and models of {task.name} have only {_words(offers.sites, 'and')}"
        )
    if needs.objective and needs.objective not in offers.objectives:
        return (
            f"{method.name} trains with the objective {needs.objective}, "
            f"and {task.name} offers {_words(offers.objectives, 'and')}"
        )
    missing = [name for name in needs.context if name not in offers.context]
    if missing:
        return (
            f"{method.name} needs {_words(missing, 'and')} with every sample, and {task.name} does not give "
            f"{'it' if len(missing) == 1 else 'them'}"
        )
    return None


def _words(names: Sequence[str], last: str) -> str:
    if len(names) < 2:
        return "".join(names) or "none"
    return f"{', '.join(names[:-1])} {last} {names[-1]}"
