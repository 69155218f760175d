"""The commands of `datapilot auth`."""
