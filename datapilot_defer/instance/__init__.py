"""An instance: the HTTP API that the public clients speak, a web page, tokens and ingestion over `storage`."""
