"""Gives the project of `tests.faults.people` a live release, whose adapter lies in the store.

`python -m tests.faults.released` prints the adapter's hash as JSON. Its weights are names only.
"""

import json
import tempfile
from pathlib import Path

import django


def main() -> None:
    django.setup()

    from apps.accounts.models import User
    from apps.common.leases import JobState
    from apps.projects.models import Project
    from apps.tuning import services
    from apps.tuning.gate import GateCheck
    from apps.tuning.models import Run
    from inference import adapters

    ada, project = User.objects.get(username="ada"), Project.objects.get(name="The Riverside Post")
    Run.objects.create(project=project, created_by=ada)
    run = Run.objects.claim_next(worker="school")
    assert run is not None
    passed = GateCheck(
        name="effect", label="Effect", candidate=1.0, live=None, bar="more than 0", passed=True
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in (adapters.CONFIG_NAME, adapters.WEIGHTS_NAME, adapters.GGUF_NAME):
            (folder / file).write_bytes(file.encode())
        sealed = adapters.seal(folder, base_sha256="b" * 64)
        adapter = services.register_adapter(
            run=run, folder=folder, sha256=sealed.sha256, base_sha256=sealed.base_sha256, checks=[passed]
        )
    services.end_run(run=run, state=JobState.DONE, reason="done")
    services.promote(user=ada, adapter_id=adapter.pk)
    print(json.dumps(adapter.sha256))


if __name__ == "__main__":
    main()
