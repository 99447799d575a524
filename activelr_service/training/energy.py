"""The energy a GPU has used, as NVML counts it."""

import torch

from activelr_service.training import distributed


class EnergyMeter:
    """Joules of the GPUs of all ranks between two calls; None where a device does not count them, as a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.handle = _find(device)
        self.before = self._read()

    def take(self) -> float | None:
        """Since the last call. Every rank must call it."""
        if self.before is None:
            return None
        before, self.before = self.before, self._read() or 0.0
        used = torch.tensor(self.before - before, dtype=torch.float64, device=self.device)
        return distributed.sum_(used).item()

    def _read(self) -> float | None:
        if self.handle is None:
            return None
        import pynvml

        return pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1000  # it counts millijoules


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
