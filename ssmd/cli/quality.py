"""`ssmd quality`: expectations asked of a day's data, and the proof that they were asked."""

from cyclopts import App

app = App(name="quality", help="Expectations about a day's data, and whether its checks ran.")

app.command("ssmd.cli.quality_run:run", name="run", help="Ask every expectation of a day, and make its report.")
app.command("ssmd.cli.quality_ran:ran", name="ran", help="Did every check of a day run? What did not is named.")
app.command(
    "ssmd.cli.quality_report:report",
    name="report",
    help="Make the pages of checks again, from the runs that are stored.",
)
