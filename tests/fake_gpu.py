"""A GPU that is not there: torch's fake tensors have its device and its rules, and no values.

Two things more are refused than torch's FakeTensorMode refuses, since a real GPU would refuse or wait for them: a list of
tensors of several devices in one ``cat`` or ``stack``, a collective of NCCL on the CPU, and, within :meth:`FakeGPU.busy`,
whatever makes the host wait for the GPU. The ranks are those of torch's "fake" process group: this process is rank 0.
"""

from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
DEVICE = torch.device("cuda", 0)
LISTS = (aten.cat.default, aten.stack.default)
COPIES = (aten._to_copy.default, aten.copy_.default)
READS = (aten._local_scalar_dense.default, aten.equal.default)


class HostSyncError(AssertionError):
    """The host waited for the GPU where it must not."""


class DeviceMixError(AssertionError):
    """Tensors of the CPU where those of the GPU are needed."""


class FakeGPU(TorchDispatchMode):
    """Within it tensors are fake. A number that the host reads is ``number``: there is no other."""

    def __init__(self):
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=False)
        self.number = 1.0
        self.is_busy = False

    def __enter__(self):
        self.fake.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.fake.__exit__(*error)

    @contextmanager
    def busy(self):
        """Within it the host may launch work on the GPU, but not wait for it."""
        self.is_busy = True
        try:
            yield
        finally:
            self.is_busy = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, FakeTensor)}
        self.check(func, devices, args, kwargs)
        if func is aten._local_scalar_dense.default:
            dtype = args[0].dtype
            return (
                self.number
                if dtype.is_floating_point
                else bool(self.number)
                if dtype == torch.bool
                else int(self.number)
            )
        return func(*args, **kwargs)

    def check(self, func, devices, args, kwargs):
        if func in LISTS and len(devices) > 1:
            raise DeviceMixError(f"{func} of tensors on {sorted(devices)}")
        if func.namespace == "c10d" and "cpu" in devices:
            raise DeviceMixError(f"NCCL cannot take tensors of the CPU: {func}")
        to_host = func in COPIES and "cuda" in devices and is_to_cpu(func, args, kwargs)
        if self.is_busy and (to_host or (func in READS and "cuda" in devices)):
            raise HostSyncError(f"{func} waits for the GPU")


def is_to_cpu(func, args, kwargs):
    if func is aten.copy_.default:
        return args[0].device.type == "cpu"
    return torch.device(kwargs.get("device") or "cuda").type == "cpu"


@contextmanager
def two_ranks():
    """This process as rank 0 of two, of which the other is not there."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
