"""What a run chose by itself, and how it moved, as text."""

import math

from activelr_service.config.optimizer import ActiveOptimizerConfig, OptimizerConfig
from activelr_service.runs.journal import read_journal
from activelr_service.runs.record import Record, update_groups, update_series
from activelr_service.runs.run import Run
from activelr_service.service.batch_size import find_completed
from activelr_service.service.resolve import Choice

HIGH_SHARE = 0.5
SHARES = (("sign_agreement", 11), ("clip_fraction", 7))  # with the widths of their columns


def explain_run(run: Run) -> list[str]:
    """Lines for the user: the choices with their reasons, then what the rule of the optimizer did so far."""
    history = read_journal(run.journal)
    optimizer = run.job().optimizer
    rule = f", {optimizer.rule} rule" if isinstance(optimizer, ActiveOptimizerConfig) else ""
    lines = [f"run {run.label}: {optimizer.type}{rule}; {run.status()}, epochs trained: {len(history)}"]
    lines += ["", "chosen", *(f"  {line}" for line in _explain_choices(run))]
    if not history:
        return [*lines, "", "no epoch has ended yet: there is nothing to say of the steps"]
    if update_groups(history):
        return [*lines, "", *_explain_updates(history)]
    return [*lines, "", *_explain_gains(optimizer, history)]


def _explain_choices(run: Run) -> list[str]:
    choices = [Choice.read(kept) for kept in run.state().get("choices", [])]
    completed = find_completed(run)
    if completed is None:
        return list(map(str, choices))
    return [*(str(choice) for choice in choices if choice.path != "global_batch_size"), *completed.lines]


def _explain_updates(history: list[Record]) -> list[str]:
    groups = update_groups(history)
    moments = sorted({0, (len(history) - 1) // 2, len(history) - 1})
    epochs = [history[index].epoch for index in moments]
    width = max(len("group"), *(len(group) for group in groups))
    columns = [f"{name} {epoch}" for name in ("step", "lr") for epoch in epochs]
    header = "  ".join([f"{'group':<{width}}", *(f"{column:>9}" for column in columns), "signs agree", "clipped"])
    lines = [
        "steps at the end of epochs, as a share of the RMS of each tensor's weights, and effective learning rates (lr)",
        f"  {header}",
    ]
    for group in groups:
        steps, rates = (dict(update_series(history, field, group)) for field in ("update_ratio", "effective_lr"))
        cells = [f"{steps[epoch]:>9.3%}" if epoch in steps else f"{'-':>9}" for epoch in epochs]
        cells += [f"{rates[epoch]:>9.2e}" if epoch in rates else f"{'-':>9}" for epoch in epochs]
        shares = [_percent(_mean(history, field, group), size) for field, size in SHARES]
        lines.append("  " + "  ".join([f"{group:<{width}}", *cells, *shares]))
    return [*lines, "", *_summarize_updates(history, groups)]


def _summarize_updates(history: list[Record], groups: list[str]) -> list[str]:
    clipped = [group for group in groups if _mean(history[len(history) // 2 :], "clip_fraction", group) > HIGH_SHARE]
    lines = [
        "A step grows while gradient sums of successive windows agree, and shrinks where they turn back; over the run it",
        "decays to zero. Signs agree: the mean share over the epochs; noise alone gives 50 %. Clipped: the share of steps",
        "that the cap on their length cut.",
    ]
    if clipped:
        lines.append(f"In the second half the cap, and not the signs, set most steps of {', '.join(clipped)}.")
    return lines


def _explain_gains(optimizer: OptimizerConfig, history: list[Record]) -> list[str]:
    names = ("optim/gain_mean", "optim/gain_q05", "optim/gain_q95", "optim/share_grew")
    if names[0] not in history[-1].metrics:
        return [describe_lr(optimizer)]
    lines = ["gains on the learning rate", "  epoch    mean     5 %    95 %  signs kept"]
    for index in sorted({0, (len(history) - 1) // 2, len(history) - 1}):
        mean, low, high, kept = (history[index].metrics.get(name, float("nan")) for name in names)
        lines.append(f"  {history[index].epoch:>5}  {mean:>6.3f}  {low:>6.3f}  {high:>6.3f}  {kept:>10.0%}")
    return lines


def describe_lr(optimizer: OptimizerConfig) -> str:
    """What an optimizer without gains does about its learning rate."""
    if optimizer.finds_step_size:
        return "this optimizer finds the lengths of its steps by itself and keeps no record of them"
    if optimizer.schedule != "constant":
        return f"this optimizer follows the schedule {optimizer.schedule} of the learning rate it was given"
    return "this optimizer keeps the learning rate it was given"


def _percent(share: float, width: int) -> str:
    """A dash for what no window has said yet."""
    return f"{'-':>{width}}" if math.isnan(share) else f"{share:>{width}.0%}"


def _mean(history: list[Record], field: str, group: str) -> float:
    values = [value for _, value in update_series(history, field, group)]
    return sum(values) / len(values) if values else float("nan")
