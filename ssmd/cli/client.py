"""`ssmd client`: who uses the gateway, and the API keys that let them in."""

from cyclopts import App

app = App(name="client", help="Clients of the gateway, and the API keys that let them in.")
app.command("ssmd.cli.client_key:app", name="key", help="API keys: create, list, revoke; shown once, when made.")
