"""The energy and the carbon of a run, and of the search for a learning rate that it replaces (section 7 of the paper).

Energy is power times time; carbon is energy times the carbon intensity of the grid. The paper takes 0.432 kg of CO2
equivalent per kWh (Lacoste et al. 2019), and as power the thermal design power of the devices.
"""

from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure

BLUE, VERMILION = matplotlib.color_sequences["okabe_ito"][5:7]

KG_PER_KWH = 0.432  # the value of the paper
WATTS = {  # thermal design power of a device, from the makers' data sheets
    "Tesla P100": 250,
    "Tesla V100": 300,
    "A100": 400,
    "H100": 700,
    "H200": 700,
    "CPU": 100,  # roughly one socket of a server
}
V100_TFLOPS = 15.7  # float32, SXM2, the peak in NVIDIA's data sheet
PAPER = {"seconds_per_epoch": 2200.0, "epochs": 100, "devices": 4, "kg": 7.92, "tflop": 13_816_000}


class Account(NamedTuple):
    """The costs of a run or of a search: hours of wall time, energy in kWh, carbon in kg of CO2 equivalent."""

    hours: float
    kwh: float
    kg: float

    def times(self, runs: int) -> "Account":
        """The costs of several such runs."""
        return Account(self.hours * runs, self.kwh * runs, self.kg * runs)


def account(hours: float, watts: float, kg_per_kwh: float = KG_PER_KWH) -> Account:
    """The costs of ``hours`` of wall time with a power of ``watts``, the sum over all devices."""
    kwh = hours * watts / 1000
    return Account(hours, kwh, kwh * kg_per_kwh)


def is_measured(history: list[dict[str, float]]) -> bool:
    """Whether every epoch has a measurement of its energy, by NVML."""
    return all("perf/energy_joules" in metrics for metrics in history)


def compute() -> list[dict[str, Any]]:
    """The example of the paper: a row with the power of one of its four V100, and a row with the power of all four."""
    hours = PAPER["seconds_per_epoch"] * PAPER["epochs"] / 3600
    rows = []
    for devices in (1, PAPER["devices"]):
        found = account(hours, devices * WATTS["Tesla V100"])
        tflop = hours * 3600 * devices * V100_TFLOPS
        rows.append({"devices": devices, "tflop": tflop, **found._asdict()})
    return rows


def summarize(table: list[dict[str, Any]]) -> list[str]:
    one, four = table
    kilowatts = WATTS["Tesla V100"] / 1000
    return [
        "The example of the paper: one more run of ResNet-18 on ImageNet, which the search for SGD needs.",
        f"  {PAPER['seconds_per_epoch']:,.0f} s an epoch x {PAPER['epochs']} epochs / 3600 = {one['hours']:.2f} h",
        f"  {one['hours']:.2f} h x {kilowatts} kW x {KG_PER_KWH} kg/kWh = {one['kg']:.2f} kg.",
        f"  The paper has {PAPER['kg']} kg: the power of one of its four GPUs.",
        f"  {one['hours']:.2f} h x 4 x {kilowatts} kW x {KG_PER_KWH} kg/kWh = {four['kg']:.2f} kg with all four",
        f"  {one['hours']:.2f} h x 3600 x 4 x {V100_TFLOPS} TFLOP/s = {four['tflop']:,.0f} TFLOP at the peak of all four."
        f" The paper has {PAPER['tflop']:,}",
    ]


def describe_run(
    history: list[dict[str, float]], tflop: float | None, devices: int, watts: float, search_runs: int
) -> list[dict[str, Any]]:
    """The costs of a run and of the search that it replaces, a row each.

    ``history``: the metrics of every epoch. If each has a measured energy, that is used; otherwise each of the ``devices``
    has a power of ``watts``. ``tflop``: floating-point operations of the run in units of 1e12, None if unknown.
    ``search_runs``: the number of runs of the search.
    """
    hours = sum(metrics["perf/epoch_seconds"] for metrics in history) / 3600
    watts, source = devices * watts, f"{devices} x {watts:g} W"
    if is_measured(history):
        watts = sum(metrics["perf/energy_joules"] for metrics in history) / 3600 / hours
        source = "measured by NVML"
    run = account(hours, watts)
    rows = [("this run", 1), (f"a search of {search_runs} runs", search_runs)]
    return [
        {"what": name, "energy": source, "tflop": tflop and tflop * runs, **run.times(runs)._asdict()}
        for name, runs in rows
    ]


def summarize_run(table: list[dict[str, Any]]) -> list[str]:
    lines = [f"energy: {table[0]['energy']}; {KG_PER_KWH} kg of CO2 equivalent per kWh"]
    for row in table:
        tflop = f"{row['tflop']:14,.1f} TFLOP" if row["tflop"] is not None else ""
        lines.append(f"  {row['what']:24}{row['hours']:10.3f} h{row['kwh']:12.4f} kWh{row['kg']:12.4f} kg{tflop}")
    return lines


def draw(table: list[dict[str, Any]]) -> Figure:
    """Draw the carbon as bars: of the paper's example, or of a run and of the search that it replaces."""
    labels = [row.get("what") or f"{row['devices']} of the paper's 4 V100" for row in table]
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axis = figure.subplots()
    bars = axis.barh(labels, [row["kg"] for row in table], color=[BLUE, VERMILION], height=0.5)
    axis.bar_label(bars, [f"{row['kg']:.3g} kg" for row in table], padding=4)
    axis.margins(x=0.15)
    axis.set(xlabel="kg of CO2 equivalent", title="Carbon emissions of a run")
    axis.invert_yaxis()
    return figure
