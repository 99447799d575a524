"""Runs the script of the page in node, as it stands in the page."""

import json
import re
import shutil
import subprocess

import torch

from activelr_service.playground import PAGE

HOW_TO_INSTALL = "is not installed: `make browser` installs it, or says what to install"
EXAMPLES = 32

# Every run with its data, and the arguments of every exponential. `exps` are torch's own values of some. The other cosine
# is that of torch's list form on two elements: its norm adds without rounding the second square, and its dot rounds all.
DRIVER = """
const { runs, exps, isList } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const f32 = Math.fround, own = Core.library.exp, known = new Map(exps), asked = new Set();
Core.library.exp = (v) => { asked.add(v); return known.has(v) ? known.get(v) : own(v); };
const norm = ([x, y = 0]) => f32(Math.sqrt(f32(f32(x * x) + y * y)));
const dot = ([x, y = 0], [v, w = 0]) => f32(f32(x * v) + f32(y * w));
if (isList) Core.library.cosine = (a, b) => f32(dot(a, b) / f32(norm(a) * norm(b)));
const results = runs.map((settings) => {
  const data = Core.makeData(settings.noise, settings.seed);
  const batches = Core.makeBatches(settings.seed, settings.batch, settings.steps);
  const { points, losses, end } = Core.run(settings, settings.id);
  return { ...settings, data, batches, points, losses, end };
});
process.stdout.write(JSON.stringify({ results, asked: [...asked] }));
"""


def find_node() -> str | None:
    return shutil.which("node")


def core() -> str:
    return re.search(r'<script id="core">(.*?)</script>', PAGE.read_text(), re.DOTALL)[1]


def run_script(runs, exps=(), is_list=False):
    """The runs of the page with these settings, and the arguments of its exponentials."""
    given = json.dumps({"runs": runs, "exps": list(exps), "isList": is_list})
    command = [find_node(), "-e", core() + DRIVER]
    answer = json.loads(subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout)
    return answer["results"], answer["asked"]


def run_with_torch_exp(runs, is_list=False):
    """The same, with torch's float32 exponential wherever it is rounded otherwise. A new value may lead to new arguments."""
    exps = {}
    while True:
        results, asked = run_script(runs, exps.items(), is_list)
        new = {v: torch.exp(torch.tensor([v])).item() for v in asked if v not in exps}
        if not new:
            return results
        exps |= new
