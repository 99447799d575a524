"""The playground: one page on which optimizers race, and on which the gains of ActiveLR can be watched.

The page computes everything itself, in plain JavaScript, and loads nothing. Its optimizers take the steps of
:mod:`activelr_service.optim` in float64; a test compares the two.
"""

from pathlib import Path

PAGE = Path(__file__).resolve().parent / "playground.html"
