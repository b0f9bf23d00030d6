"""Why a training run ended early. `reason` is what the worker stores, the message what people read.

TrainingFailed
├── BadConfig      config.json has mistakes; all of them are listed
├── BadData        a line of train.jsonl or heldout.jsonl is not a record
├── NoSamples      nothing is left to learn from, or to measure on
├── NoSpace        the disk is too full for a checkpoint or an adapter
├── Diverged       a loss or a gradient is no longer a finite number
├── RunChanged     the folder's data or settings differ from those of its checkpoint
└── RunBusy        another process trains in this folder

Stopped            somebody asked for it; not a failure
"""

from inference.errors import EngineError


class TrainingFailed(EngineError):
    reason = "training_failed"


class BadConfig(TrainingFailed):
    reason = "bad_config"


class BadData(TrainingFailed):
    reason = "bad_data"


class NoSamples(TrainingFailed):
    reason = "no_samples"


class NoSpace(TrainingFailed):
    reason = "no_space"


class Diverged(TrainingFailed):
    reason = "diverged"


class RunChanged(TrainingFailed):
    reason = "run_changed"


class RunBusy(TrainingFailed):
    reason = "run_busy"


class Stopped(Exception):
    """Training ended at a step boundary because somebody asked; the same folder goes on later."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step
