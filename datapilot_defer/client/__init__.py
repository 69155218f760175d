"""An instance over HTTP."""
