"""Section 7's account of compute and carbon: what a run costs, and the search for a learning rate that it replaces.

Energy is power times time; carbon is energy times the carbon intensity of the grid. The paper takes 0.432 kg of CO2
equivalent per kWh (Lacoste et al. 2019) and the devices' thermal design power.
"""

from typing import Any, NamedTuple

from matplotlib.figure import Figure

KG_PER_KWH = 0.432  # the paper's
WATTS = {  # thermal design power of a device, from the makers' data sheets
    "Tesla P100": 250,
    "Tesla V100": 300,
    "A100": 400,
    "H100": 700,
    "H200": 700,
    "CPU": 100,  # a socket of a server, roughly
}
V100_TFLOPS = 15.7  # float32, SXM2, the maker's peak
PAPER = {"seconds_per_epoch": 2200.0, "epochs": 100, "devices": 4, "kg": 7.92, "tflop": 13_816_000}


class Account(NamedTuple):
    """Of one run or a search: hours of wall time, energy in kWh, carbon in kg of CO2 equivalent."""

    hours: float
    kwh: float
    kg: float

    def times(self, runs: int) -> "Account":
        return Account(self.hours * runs, self.kwh * runs, self.kg * runs)


def account(hours: float, watts: float, kg_per_kwh: float = KG_PER_KWH) -> Account:
    """The account of ``hours`` at a power of ``watts``, over all devices."""
    kwh = hours * watts / 1000
    return Account(hours, kwh, kwh * kg_per_kwh)


def is_measured(history: list[dict[str, float]]) -> bool:
    """Whether the metrics of every epoch have the energy that NVML counted."""
    return all("perf/energy_joules" in metrics for metrics in history)


def compute() -> list[dict[str, Any]]:
    """The paper's worked example: one row with the power of one of its four V100, one with that of all."""
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
        "The paper's example: one more run of ResNet-18 on ImageNet, which SGD's search needs and ActiveSGD's does not.",
        f"  {PAPER['seconds_per_epoch']:,.0f} s an epoch x {PAPER['epochs']} epochs / 3600 = {one['hours']:.2f} h",
        f"  {one['hours']:.2f} h x {kilowatts} kW x {KG_PER_KWH} kg/kWh = {one['kg']:.2f} kg: the paper's {PAPER['kg']} kg,",
        "  which is the power of one of its four GPUs",
        f"  {one['hours']:.2f} h x 4 x {kilowatts} kW x {KG_PER_KWH} kg/kWh = {four['kg']:.2f} kg with all four",
        f"  {one['hours']:.2f} h x 3600 x 4 x {V100_TFLOPS} TFLOP/s = {four['tflop']:,.0f} TFLOP at the peak of all four:"
        f" the paper's {PAPER['tflop']:,}",
    ]


def describe_run(
    history: list[dict[str, float]], tflop: float | None, devices: int, watts: float, search_runs: int
) -> list[dict[str, Any]]:
    """A run and the search that it replaces, from the metrics of its epochs: measured energy if every epoch has it, else
    ``watts`` for each of the devices. ``tflop``: floating-point operations of the run in units of 1e12, if known."""
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
    """Bars of carbon: of the paper's example, or of a run beside the search it replaces."""
    labels = [row.get("what") or f"{row['devices']} of the paper's 4 V100" for row in table]
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axis = figure.subplots()
    bars = axis.barh(labels, [row["kg"] for row in table], color=["#0072B2", "#D55E00"], height=0.5)
    axis.bar_label(bars, [f"{row['kg']:.3g} kg" for row in table], padding=4)
    axis.margins(x=0.15)
    axis.set(xlabel="kg of CO2 equivalent", title="Carbon of a run")
    axis.invert_yaxis()
    return figure
