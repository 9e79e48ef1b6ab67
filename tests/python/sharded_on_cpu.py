"""Run `autodeco` with the model sharded by FSDP2 over CPU processes; accelerate itself shards on GPUs only."""

import sys

from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from autodeco import cli


class ShardedAccelerator(Accelerator):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state.distributed_type = DistributedType.FSDP
        self.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
        )


if __name__ == "__main__":
    import accelerate

    accelerate.Accelerator = ShardedAccelerator
    sys.exit(cli.main(sys.argv[1:]))
