"""Reports of robustness studies: pure functions from a table of trials to numbers, figures and a page."""

from activelr_service.report.trials import load_table
from activelr_service.report.write import summary_lines, write_report

__all__ = ["load_table", "summary_lines", "write_report"]
