"""The bridge: the only room that knows both what people do (apps) and the engine (inference).

Celery imports this package; each module registers its tasks. None of them loads torch or
llama_cpp: the engine and every training are processes of their own.
"""

from workers import crew, generation, presence, sweeper, tuning

__all__ = ["crew", "generation", "presence", "sweeper", "tuning"]
