"""The report of a run, `report.md` and `report.html`, and of several runs, `suite.md` and `suite.html`.

Both files say the same; both are rebuilt from the records alone, to the same bytes. The HTML holds everything that it
shows: it loads nothing from anywhere but the videos beside it.
"""

from sim_client.results.report.markdown import markdown
from sim_client.results.report.suite import suite_json, write_suite_report
from sim_client.results.report.suite_rows import SuiteRow, SuiteTotal
from sim_client.results.report.wording import headline
from sim_client.results.report.write import html_path, write_report

__all__ = [
    "SuiteRow",
    "SuiteTotal",
    "headline",
    "html_path",
    "markdown",
    "suite_json",
    "write_report",
    "write_suite_report",
]
