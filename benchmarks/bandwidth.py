"""Memory bandwidth, the limit that decoding is measured against."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

SIZE = 256 << 20  # bytes a thread reads, far beyond any cache


def read_bandwidth(threads: int, rounds: int = 5) -> float:
    """Best rate in bytes per second at which ``threads`` threads read memory."""
    parts = [np.ones(SIZE // 8, np.int64) for _ in range(threads)]
    rates = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            start = time.perf_counter()
            list(pool.map(np.bitwise_or.reduce, parts))
            rates.append(threads * SIZE / (time.perf_counter() - start))
    return max(rates)
