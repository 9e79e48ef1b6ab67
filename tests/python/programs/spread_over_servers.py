"""Greedy tokens, temperatures and top-p as JSON: python spread_over_servers.py MODEL HEADS TOKENS [SERVERS [JSON]]

SERVERS are HOST:PORT,HOST:PORT. JSON says how they share the layers, in arguments of autodeco.Llama; else half each.
"""

import json
import sys
import time
from itertools import islice

import autodeco

if __name__ == "__main__":
    model, heads, tokens, *servers = sys.argv[1:]
    options = {"verbose": bool(servers)}
    if servers:
        options |= {"rpc_servers": servers[0], **json.loads(servers[1] if servers[1:] else '{"tensor_split": [1, 1]}')}
    llm = autodeco.Llama(model, heads, n_ctx=256, n_threads=1, n_threads_batch=1, **options)
    generation = llm.generate(llm.tokenize(b"The capital of France is"), temp=0.0)
    next(generation)
    begin = time.perf_counter()
    list(islice(generation, int(tokens) - 1))
    seconds = time.perf_counter() - begin
    generation.close()
    print(json.dumps({**llm.decoding.to_dict(), "tokens_per_second": (int(tokens) - 1) / seconds}))
    llm.close()
