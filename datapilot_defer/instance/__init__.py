"""The server: the HTTP API that the public clients use, web pages, tokens and uploads."""
