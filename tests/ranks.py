"""Run a function in several gloo processes, as torchrun would, and collect what it returns.

The processes are forked from one that has imported what they need: a start takes no seconds of imports.
"""

import os
from multiprocessing import set_forkserver_preload
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.conftest import free_port

set_forkserver_preload(["torch._dynamo", "torchvision", "transformers", "activelr_service.training.worker"])


def run_ranks(function, world_size, tmp_path, *args):
    """``[function(rank, *args) for each rank]``, computed in ``world_size`` processes that share a process group."""
    results = Path(tmp_path) / f"ranks-{free_port()}"
    results.mkdir()
    arguments = (function, world_size, free_port(), results, args)
    mp.start_processes(_enter, arguments, nprocs=world_size, start_method="forkserver")
    return [torch.load(results / str(rank), weights_only=False) for rank in range(world_size)]


def _enter(rank, function, world_size, port, results, args):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    torch.save(function(rank, *args), results / str(rank))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # at an ordinary exit, on a machine under load, threads of torch can outlive what they use and abort
