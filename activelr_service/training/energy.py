"""The energy a GPU has used, as NVML counts it."""

import torch

from activelr_service.training import distributed


class EnergyMeter:
    """Joules of the GPUs of all ranks between two calls; None where the device of a rank does not count them, as a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.handle = _find(device)
        self.before = self._read()

    def take(self) -> float | None:
        """Since the last call. Every rank must call it; all get the same answer."""
        if self.device.type != "cuda":  # the same on every rank, unlike what follows
            return None
        before, self.before = self.before, self._read()
        used = None if before is None or self.before is None else self.before - before
        return distributed.sum_if_all_have(used, self.device)

    def _read(self) -> float | None:
        if self.handle is None:
            return None
        import pynvml

        try:
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1000  # it counts millijoules
        except pynvml.NVMLError:  # a driver that was restarted; the training goes on without this number
            return None


def _find(device: torch.device) -> object | None:
    """NVML's handle of a CUDA device that counts its energy (Volta and later)."""
    if device.type != "cuda":
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return handle
