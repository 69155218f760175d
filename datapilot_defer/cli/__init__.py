"""The command line: options, calls and reports; the work itself is done below."""
