"""The command line: options, calls and output. Lower layers do the work."""
