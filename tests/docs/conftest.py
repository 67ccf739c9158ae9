"""What was not run, and why, at the end of every run."""


def pytest_terminal_summary(terminalreporter):
    reports = [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]
    told = [reason for report in reports for name, reason in report.user_properties if name == "not run"]
    if told:
        terminalreporter.section(f"{len(told)} blocks not run")
        for reason in told:
            terminalreporter.write_line(reason)
