"""The commands of `datapilot instance`."""
