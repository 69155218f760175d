"""The HTTP API of an instance, one router per resource."""
