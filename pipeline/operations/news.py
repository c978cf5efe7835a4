"""Decides what of a run's remarks is news, by what earlier runs have told, which the ledger keeps as facts."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from contextlib import suppress
from itertools import chain, islice
from typing import TYPE_CHECKING

from pipeline.ledger.origins import key_of
from pipeline.text import in_general

if TYPE_CHECKING:
    from pipeline.operations.run_context import RunContext

# The names of the facts: the notes of the run before, and when it was last told which files are held.
_NOTES, _HELD = "told_notes", "told_held_at"
# More notes than these, and more characters of each, are not compared.
_MOST_NOTES, _NOTE_LENGTH = 100, 500
# Seconds between two reminders of files that are held.
_REMIND_EVERY_S = 7 * 86_400.0
# How many held files are looked at for their reasons, and how many of them and of the reasons are named.
_LOOKED_AT, _NAMED = 500, 3


def find_news(context: RunContext) -> None:
    """Leave among the new notes of the summary those that the run before did not tell; add a reminder if it is due."""
    with suppress(sqlite3.Error):  # then all is news; what is wrong with the ledger is told by who needs it
        context.ledger.begin()
        _leave_new_notes(context)
        _remind_of_held(context)
        context.ledger.commit()


def _leave_new_notes(context: RunContext) -> None:
    facts, summary = context.ledger.facts, context.summary
    before = facts.get(_NOTES) or []
    now = [note[:_NOTE_LENGTH] for note in summary.new_notes]
    summary.new_notes = [note for note in summary.new_notes if note[:_NOTE_LENGTH] not in before]
    if context.selection.is_partial or not summary.ended_in_order:
        now = list(dict.fromkeys(before + now))  # it has not met all that the run before has
    if now[-_MOST_NOTES:] != before:
        facts.set(_NOTES, now[-_MOST_NOTES:])


def _remind_of_held(context: RunContext) -> None:
    """Set the reminder of files that are held, a week after the first night of that or after the last reminder."""
    facts, summary, now = context.ledger.facts, context.summary, time.time()
    if context.selection.is_partial or not summary.ended_in_order:
        return
    told_at = facts.get(_HELD)
    if summary.held <= summary.dismissed:
        if told_at is not None:
            facts.forget(_HELD)
    elif told_at is None:
        facts.set(_HELD, now)
    elif not 0 <= now - told_at < _REMIND_EVERY_S:  # a time to come is that of a clock that was wrong
        summary.reminder = _reminder(context, summary.held - summary.dismissed)
        facts.set(_HELD, now)


def _reminder(context: RunContext, held: int) -> str:
    """Describe the held files, with both cures."""
    decisions = (each for each in context.plan.store.decisions("held") if each.reason.code != "dismissed")
    outputs = chain(context.summary.tried_for_all, ((each.origin, each.stage) for each in decisions))
    first = list(islice(outputs, _LOOKED_AT))
    names = list(dict.fromkeys(str(origin) for origin, _ in first))[:_NAMED]
    reasons = Counter(
        in_general(failure.error)
        for origin, stage in first
        for failure in context.ledger.failures.of_source(key_of(origin))
        if failure.stage == stage
    )
    more = f" and {held - len(names):,} more" if held > len(names) else ""
    why = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(_NAMED))
    retry = context.summary.command("run", "--retry-failed")
    dismiss = context.summary.command("failures", "--dismiss PATTERN")
    unwanted = f"; if they need not be done: {dismiss}" if dismiss else ""
    return f"held, since they failed too often: {', '.join(names)}{more} ({why}); once mended: {retry}{unwanted}"
