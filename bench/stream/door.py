"""The engine's door alone: the requests that the worker makes, without worker, database and web.

`python -m bench.stream.door NUM_WRITERS NUM_ROUNDS`, in the environment of a house whose workers
are gone; prints JSON. The drafts of the house are written again, with other seeds.
"""

import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import django


def main() -> None:
    num_writers, num_rounds = map(int, sys.argv[1:])
    django.setup()
    from workers import engine

    requests = _requests(num_writers * num_rounds + num_writers)
    door = engine.get_engine()
    try:
        _write(door, [[request] for request in requests[:num_writers]])  # as the stack, the door is warm
        rest = requests[num_writers:]
        print(json.dumps(_write(door, [rest[number::num_writers] for number in range(num_writers)])))
    finally:
        engine.close_engine()


def _requests(count: int) -> list[Any]:
    from apps.drafts.models import Draft
    from workers.generation import request_for

    drafts = Draft.objects.select_related("preset_version", "job").order_by("pk")[:count]
    requests = []
    for draft in drafts:
        request = request_for(draft, draft.job)
        sampling = replace(request.sampling, seed=(request.sampling.seed + 1_000_003) % 2**31)
        requests.append(replace(request, sampling=sampling, resume_ids=(), resume_text=""))
    return requests


def _write(door: Any, shares: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Each share by a thread, one after the other."""
    firsts: list[float] = []
    counts: list[int] = []

    def write(share: Sequence[Any]) -> None:
        for request in share:
            asked = time.perf_counter()
            first = 0.0
            for event in door.submit(request):
                first = first or (time.perf_counter() - asked if event.text else 0.0)
                counts.append(len(event.token_ids))
            firsts.append(first)

    threads = [threading.Thread(target=write, args=(share,)) for share in shares]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seconds": time.perf_counter() - began, "num_tokens": sum(counts), "firsts": firsts}


if __name__ == "__main__":
    main()
