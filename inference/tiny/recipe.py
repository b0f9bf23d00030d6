"""Numbers of a training, in one place and without torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Numbers of a training; the loss counts completions only.

    A step reads rows x length tokens, in `accumulate` parts of whole rows. With a teacher,
    `teacher_share` of the loss is the distance from its softened distribution (Hinton, Vinyals
    and Dean 2015, section 2) and the rest the cross-entropy with the text.
    """

    seed: int = 1
    steps: int = 4000
    rows: int = 128
    length: int = 1024
    accumulate: int = 1
    learning_rate: float = 2e-3
    final_share: float = 0.02
    warmup_steps: int = 200
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    hidden: int = 256
    feed_forward: int = 768
    layers: int = 8
    heads: int = 8
    kv_heads: int = 8
    teacher_share: float = 0.5
    teacher_temperature: float = 2.0
    checkpoint_every: int = 500
