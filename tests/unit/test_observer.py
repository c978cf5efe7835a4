"""pipeline/observer.py: several observers of one run."""

from __future__ import annotations

import inspect

from pipeline.messages import Outcome, Source
from pipeline.observer import Observers, RunObserver, Step

EVENTS: dict[str, tuple[object, ...]] = {
    "on_start": (),
    "on_held": (2,),
    "on_planned": (3,),
    "on_step": (Step("up", "made", "str", 0.1),),
    "on_outcome": (Outcome(Source(b"a", 1, 1), ()),),
    "on_outcomes": ([Outcome(Source(b"a", 1, 1), ())],),
    "on_in_hand": ([],),
    "on_left": (12.5,),
    "on_slow": ("slow",),
    "on_signal": ("SIGTERM",),
    "on_jobs_ended": (),
    "on_note": ("a note",),
    "on_end": (),
}


class Recording(RunObserver):
    """Remembers what it was told, by its own name; raises at one event."""

    def __init__(self, name: str, heard: list[tuple[object, ...]], raises_at: str = "") -> None:
        for event in EVENTS:

            def hear(*details: object, event: str = event) -> None:
                heard.append((name, event, *details))
                if event == raises_at:
                    raise ValueError("of the observer's own")

            setattr(self, event, hear)


def test_every_event_reaches_every_observer_in_turn() -> None:
    """No event of the protocol is forgotten, nor any of its details."""
    assert set(EVENTS) == {name for name, _ in inspect.getmembers(RunObserver) if name.startswith("on_")}
    heard: list[tuple[object, ...]] = []
    observers = Observers([Recording("first", heard), Recording("second", heard)], lambda *_: None)
    for event, details in EVENTS.items():
        getattr(observers, event)(*details)
    assert heard == [(name, event, *EVENTS[event]) for event in EVENTS for name in ("first", "second")]


def test_one_that_is_added_hears_what_follows() -> None:
    """The others have heard what was before; one that takes no outcomes is given none."""
    heard: list[tuple[object, ...]] = []
    observers = Observers([Recording("first", heard)], lambda *_: None)
    observers.on_start()
    for late in (Recording("late", heard), RunObserver()):
        observers.add(late)
    observers.on_outcomes([])
    observers.on_end()
    told = [("first", "on_start"), ("first", "on_outcomes", []), ("late", "on_outcomes", [])]
    assert heard == [*told, ("first", "on_end"), ("late", "on_end")]


def test_one_that_raises_is_reported_and_left_out() -> None:
    """A bar that fails costs the bar: the others, and the run, go on."""
    heard: list[tuple[object, ...]] = []
    bad, good = Recording("bad", heard, "on_start"), Recording("good", heard)
    reported: list[tuple[RunObserver, str]] = []
    observers = Observers([bad, good], lambda observer, error: reported.append((observer, repr(error))))
    for _ in range(2):
        observers.on_start()
    observers.on_end()
    assert heard == [("bad", "on_start"), ("good", "on_start"), ("good", "on_start"), ("good", "on_end")]
    assert reported == [(bad, repr(ValueError("of the observer's own")))]
