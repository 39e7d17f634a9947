"""The strategy in force: what the ConfigMap kube-system/minik8s-config says under `sched`, followed live."""

from __future__ import annotations

import asyncio
import difflib

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.log import get_logger
from minik8s.scheduler.strategies import DEFAULT, STRATEGIES, Strategy

NAMESPACE = "kube-system"
NAME = "minik8s-config"
KEY = "sched"
log = get_logger("scheduler")


class Settings:
    """`strategy` is always a valid one: a name that is not known changes nothing and is told."""

    def __init__(self, informers: Informers, recorder: Recorder) -> None:
        self.strategy: Strategy = DEFAULT
        self.changed = asyncio.Event()  # the strategy has; for one waiter, who clears it
        self._recorder = recorder
        self.informer = informers.of(ConfigMap, namespace=NAMESPACE, fields=f"metadata.name={NAME}")
        self.informer.on_change(self._changed)

    def _changed(self, old: ConfigMap | None, new: ConfigMap | None) -> None:
        if (new or old or ConfigMap()).metadata.name != NAME:
            return
        name = (new.data.get(KEY) if new else None) or DEFAULT.name
        if old is not None and new is not None and old.data.get(KEY) == new.data.get(KEY):
            return
        strategy = STRATEGIES.get(name)
        if strategy is None and new is not None:
            close = difflib.get_close_matches(name, STRATEGIES, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(STRATEGIES))}"
            message = f"unknown scheduling strategy {name!r}: {hint} Still in force: {self.strategy.name}"
            log.warning("unknown strategy", sched=name, in_force=self.strategy.name, remedy=hint)
            self._recorder.event(new, "Warning", "UnknownStrategy", message)
        elif strategy is not None and strategy is not self.strategy:
            log.info("strategy changed", sched=strategy.name, before=self.strategy.name)
            self.strategy = strategy
            self.changed.set()
