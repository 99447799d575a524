"""The oracle: ActiveLR written from the paper, one scalar formula after another, one parameter at a time.

It shares no code with the package. Gains follow Algorithm 1 in gain form; the directions follow the papers of the base
optimizers (AdaBelief as its authors ship it). Everything is float32, as in the optimizers under test.
"""

import math

import torch


class ReferenceActive:
    """ActiveLR around ``direction(state, grad, step) -> d`` with decoupled weight decay."""

    def __init__(self, params, direction, lr, weight_decay=0.0, gain_increment=0.1, gain_decay=0.9):
        self.params, self.direction, self.lr, self.weight_decay = list(params), direction, lr, weight_decay
        self.gain_increment, self.gain_decay = gain_increment, gain_decay
        self.gains = [torch.ones_like(p) for p in self.params]
        self.sums = [torch.zeros_like(p) for p in self.params]
        self.previous = None
        self.states = [{} for _ in self.params]
        self.t = 0

    def step(self):
        self.t += 1
        for p, gain, total, state in zip(self.params, self.gains, self.sums, self.states, strict=True):
            g = p.grad
            total += g
            p.data = p.data * (1 - self.lr * self.weight_decay)
            p.data = p.data - self.lr * gain * self.direction(state, g, self.t)

    def end_epoch(self):
        if self.previous is not None:
            for gain, new, old in zip(self.gains, self.sums, self.previous, strict=True):
                for i in range(gain.numel()):
                    product = new.view(-1)[i] * old.view(-1)[i]
                    grown = gain.view(-1)[i] + self.gain_increment
                    gain.view(-1)[i] = grown if product > 0 else gain.view(-1)[i] * self.gain_decay
        self.previous = [total.clone() for total in self.sums]
        for total in self.sums:
            total.zero_()


def sgd(momentum):
    def direction(state, g, t):
        state["b"] = g.clone() if t == 1 else momentum * state["b"] + g
        return state["b"]

    return direction


def adam(beta1=0.9, beta2=0.999, eps=1e-8):
    def direction(state, g, t):
        state["m"] = beta1 * state.get("m", torch.zeros_like(g)) + (1 - beta1) * g
        state["v"] = beta2 * state.get("v", torch.zeros_like(g)) + (1 - beta2) * g * g
        m_hat = state["m"] / (1 - beta1**t)
        v_hat = state["v"] / (1 - beta2**t)
        return m_hat / (v_hat.sqrt() + eps)

    return direction


def _rectification(t, beta2):
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    r = None
    if rho > 4:
        r = math.sqrt(((rho - 4) * (rho - 2) * rho_inf) / ((rho_inf - 4) * (rho_inf - 2) * rho))
    return rho, r


def radam(beta1=0.9, beta2=0.999, eps=1e-8):
    def direction(state, g, t):
        state["m"] = beta1 * state.get("m", torch.zeros_like(g)) + (1 - beta1) * g
        state["v"] = beta2 * state.get("v", torch.zeros_like(g)) + (1 - beta2) * g * g
        m_hat = state["m"] / (1 - beta1**t)
        rho, r = _rectification(t, beta2)
        if rho > 5:
            return m_hat * r * math.sqrt(1 - beta2**t) / (state["v"].sqrt() + eps)
        return m_hat

    return direction


def adabelief(beta1=0.9, beta2=0.999, eps=1e-16):
    def direction(state, g, t):
        state["m"] = beta1 * state.get("m", torch.zeros_like(g)) + (1 - beta1) * g
        difference = g - state["m"]
        state["s"] = beta2 * state.get("s", torch.zeros_like(g)) + (1 - beta2) * difference * difference + eps
        m_hat = state["m"] / (1 - beta1**t)
        rho, r = _rectification(t, beta2)
        if rho >= 5:
            return m_hat * r * math.sqrt(1 - beta2**t) / (state["s"].sqrt() + eps)
        return m_hat

    return direction


def muon(momentum=0.95):
    """Orthogonalized momentum of matrices (Jordan et al. 2024), sized as Liu et al. 2025; Adam for vectors."""
    of_vectors = adam()

    def direction(state, g, t):
        if g.dim() < 2:
            return of_vectors(state, g, t)
        state["m"] = momentum * state.get("m", torch.zeros_like(g)) + (1 - momentum) * g
        nesterov = momentum * state["m"] + (1 - momentum) * g
        x = nesterov.flatten(1)
        size = 0.2 * math.sqrt(max(x.shape))
        x = x / x.norm()
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        return size * x.view_as(g)

    return direction
