"""Judging one law: seeded, on one thread, every exception caught; what fails for a deeper reason is not held against
a thing twice."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from peftx.plugins.targets import one_line
from peftx.testing.lawbook import Kind, Law, LawError, NotApplicable, law_named
from peftx.testing.report import Outcome

__all__ = ["Known", "judge", "reason_for", "settle_known"]

#: what is known to fail: law, or (law, case) -> why
Known = Mapping[Any, str]


@contextmanager
def quiet() -> Iterator[None]:
    """One thread, the caller's random state left alone, and no warning printed between the lines of a table."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(threads)


def judge(law: Law, subject: Any, *, kind: Kind, name: str, case: str = "") -> Outcome:
    """The outcome of one law; nothing is raised but what stops a program."""
    blank = Outcome(kind, name, law.name, law.demands, case, "passed")
    start = time.perf_counter()
    with quiet():
        outcome = _judged(law, subject, blank)
        if outcome.state == "failed":
            deeper = next(
                (other for other in law.needs if _fails(law_named(kind, other), subject, blank)), ""
            )
            if deeper:
                outcome = replace(
                    outcome, state="skipped", message=f"not judged while {deeper} fails", trace=""
                )
    return replace(outcome, seconds=time.perf_counter() - start)


def _judged(law: Law, subject: Any, blank: Outcome) -> Outcome:
    try:
        law(subject)
    except LawError as error:
        return replace(blank, state="failed", message=_line(error), trace=traceback.format_exc())
    except NotApplicable as error:
        return replace(blank, state="skipped", message=_line(error))
    except Exception as error:
        return replace(
            blank, state="failed", message=f"it raised {one_line(error)}", trace=traceback.format_exc()
        )
    return blank


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _fails(law: Law, subject: Any, blank: Outcome) -> bool:
    return _judged(law, subject, blank).state == "failed" or any(
        _fails(law_named(law.kind, other), subject, blank) for other in law.needs
    )


def reason_for(known: Known, law: str, case: str) -> str:
    """Why a law is known to fail on a case, or an empty string."""
    return known.get((law, case)) or known.get(law) or ""


def settle_known(outcomes: Iterable[Outcome], known: Known) -> list[Outcome]:
    """Turn failures that were declared into known ones, and declared ones that hold into mended ones.

    A whole law declared is mended when it holds on every case it was judged on.
    """
    found = list(outcomes)
    failing = {one.law for one in found if one.state == "failed"}

    def settle(one: Outcome) -> Outcome:
        reason = reason_for(known, one.law, one.case)
        if not reason:
            return one
        if one.state == "failed":
            return replace(one, state="known", message=f"{reason} ({one.message})")
        if one.state == "passed" and ((one.law, one.case) in known or one.law not in failing):
            return replace(
                one,
                state="mended",
                message=f"declared as a known failure ({reason}), but it holds; take it off the list",
            )
        return one

    return [settle(one) for one in found]


def first_that_applies(
    law: Law, subjects: Iterable[tuple[str, Any]], judged: Callable[..., Outcome]
) -> Outcome:
    """The outcome on the first case that can be judged; the last skipped one when none can."""
    outcome: Outcome | None = None
    for case, subject in subjects:
        outcome = judged(law, subject, case)
        if outcome.state != "skipped":
            return outcome
    assert outcome is not None, "no case at all"
    return outcome
