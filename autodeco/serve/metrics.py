"""Numbers about what was served, as Prometheus reads them; autodeco-server has the same."""

import threading
from dataclasses import dataclass, field


@dataclass
class Metrics:
    """Sums over all tokens that heads decided since the start."""

    tokens: int = 0
    greedy: int = 0
    temperature: float = 0.0
    top_p: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, values: dict[str, list] | None) -> None:
        """Count the ``values`` of tokens as ``Decoding.to_dict`` gives them."""
        if values is None:
            return
        with self._lock:
            self.tokens += len(values["token"])
            self.greedy += sum(size == 1 for size in values["nucleus"])
            self.temperature += sum(values["temperature"])
            self.top_p += sum(values["top_p"])

    def text(self) -> str:
        """All of them in Prometheus' text format, version 0.0.4."""
        with self._lock:
            among = max(self.tokens, 1)
            rows = [
                ("tokens_total", "counter", "Number of tokens that the heads have decided", self.tokens),
                ("greedy_tokens_total", "counter", "Number of them whose nucleus was one token", self.greedy),
                ("temperature_mean", "gauge", "Mean of the temperatures", self.temperature / among),
                ("top_p_mean", "gauge", "Mean of the top-p values", self.top_p / among),
                ("greedy_share", "gauge", "Share of the tokens whose nucleus was one token", self.greedy / among),
            ]
        lines = []
        for name, kind, help, value in rows:
            name = f"autodeco:{name}"
            lines += [f"# HELP {name} {help}", f"# TYPE {name} {kind}", f"{name} {value:.9g}"]
        return "\n".join(lines) + "\n"
