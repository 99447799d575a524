"""Reports of robustness studies: functions that make numbers, figures and an HTML page from a table of trials."""

from activelr_service.reports.trials import load_table
from activelr_service.reports.write import summary_lines, write_report

__all__ = ["load_table", "summary_lines", "write_report"]
