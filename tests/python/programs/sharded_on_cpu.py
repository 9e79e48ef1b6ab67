"""Run `autodeco` with the model sharded by FSDP2 over CPU processes; accelerate itself shards on GPUs only.

FSDP_CPU_RAM_EFFICIENT_LOADING=true: the first process alone loads the weights.
"""

import os
import sys

from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from autodeco import cli


class ShardedAccelerator(Accelerator):
    def __init__(self, **kwargs):
        asked = {
            name: os.environ.pop(name, "false") for name in ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING")
        }
        super().__init__(**kwargs)
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
        )
        os.environ |= asked  # which transformers reads; accelerate would have wanted a GPU
        plugin.cpu_ram_efficient_loading = asked["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "true"
        self.state.distributed_type = DistributedType.FSDP
        self.state.fsdp_plugin = plugin


if __name__ == "__main__":
    import accelerate

    accelerate.Accelerator = ShardedAccelerator
    sys.exit(cli.main(sys.argv[1:]))
