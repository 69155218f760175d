"""Commands of `datapilot instance`."""
