"""A parser for the requests of one connection that limits how much work a client can cause."""

from __future__ import annotations

import h11

# A request whose body has at most this size is passed to the application only after it has arrived
# completely.
MAX_HELD_BODY_BYTES = 16 * 1024
# A larger body is passed on in pieces of this size, even if it arrives in smaller parts.
_PIECE_BYTES = 64 * 1024


class RequestParser(h11.Connection):
    """A parser that requires a Content-Length header for a request body.

    A chunked body could consist of single bytes, each of which takes as long to parse as a small
    request. Parsing 256 kB of them at once would block the server for a second. Object stores do
    not accept chunked uploads either.

    ignores_body: whether the current request has a chunked body. Such a body is never parsed, so no
    other request can follow on the connection. held_request: the current request, while it has a
    small body that is incomplete.
    """

    def __init__(self, max_incomplete_event_size: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size)
        self.ignores_body = False
        self.held_request: h11.Request | None = None
        self._missing_bytes = 0
        self._unparsed_bytes = 0

    def receive_data(self, data: bytes) -> None:
        """Add bytes from the client."""
        if self.ignores_body:
            return
        self._unparsed_bytes += len(data)
        super().receive_data(data)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return the next part of a request, or a value that means more bytes are needed."""
        piece_bytes = min(self._missing_bytes, _PIECE_BYTES)
        if self.our_state is h11.DONE:
            piece_bytes = 0  # the request is already answered, so discard the rest
        if self.ignores_body or self._unparsed_bytes < piece_bytes:
            return h11.NEED_DATA
        if self.held_request is not None:
            request = self.held_request
            self.held_request = None
            return request
        event = super().next_event()
        if isinstance(event, h11.Request):
            return self._begin_body(event)
        if isinstance(event, h11.Data):
            self._missing_bytes -= len(event.data)
            self._unparsed_bytes -= len(event.data)
        return event

    def _begin_body(self, request: h11.Request) -> h11.Request | type[h11.NEED_DATA]:
        headers = dict(request.headers)
        self.ignores_body = b"transfer-encoding" in headers
        self._missing_bytes = int(headers.get(b"content-length", b"0"))
        self._unparsed_bytes = len(self.trailing_data[0])
        if self._unparsed_bytes < self._missing_bytes <= MAX_HELD_BODY_BYTES:
            self.held_request = request
            return h11.NEED_DATA
        return request
