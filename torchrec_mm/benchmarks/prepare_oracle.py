"""The requests of one user in plain Python: a slow second reading of the rules of events."""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from torchrec_mm.data.prepare.events import EventRules


def slow_requests(
    user: int, events: Iterable[tuple[int, int, str]], rules: EventRules
) -> list[dict[str, Any]]:
    """What ``requests_of`` must make of one user, as rows of REQUEST_SCHEMA.

    ``events``: (timestamp, item_id, event) in any order, with other kinds and repetitions.
    """
    events = set(events)
    shown = sorted((time, item) for time, item, kind in events if kind == rules.shown_event)
    clicked = sorted((time, item) for time, item, kind in events if kind == rules.clicked_event)
    in_training = math.ceil(len(shown) * (1 - rules.test_share) - 1e-9)
    labels = _labels(shown, clicked, rules.attribution_s)
    requests: list[dict[str, Any]] = []
    before = None
    for (time, item), label in zip(shown, labels, strict=True):
        is_test = time > shown[max(in_training, 1) - 1][0]
        if (
            before is None
            or time - before > rules.pause_s
            or is_test != requests[-1]["is_test"]
            or len(requests[-1]["labels"]) == rules.max_candidates
        ):
            past = [item for click, item in clicked if click < time]
            requests.append(
                {
                    "user_id": user,
                    "timestamp": time,
                    "behaviour_item_ids": past[-rules.behaviours :],
                    "candidate_item_ids": [],
                    "labels": [],
                    "is_test": is_test,
                }
            )
        requests[-1]["candidate_item_ids"].append(item)
        requests[-1]["labels"].append(label)
        before = time
    return requests


def _labels(
    shown: list[tuple[int, int]], clicked: list[tuple[int, int]], attribution_s: int
) -> list[int]:
    """1 where a click came at or after an impression, in time, and before the next one."""
    clicks = defaultdict(list)
    for time, item in clicked:
        clicks[item].append(time)
    shown_next: dict[int, int] = {}
    labels = []
    for time, item in reversed(shown):
        click = next((click for click in clicks[item] if click >= time), math.inf)
        again = shown_next.get(item, math.inf)
        labels.append(int(click - time <= attribution_s and click < again))
        shown_next[item] = time
    return labels[::-1]
