"""The fault table: faults and the expected end of `datapilot`.

Each row runs one command as a process, through a fault proxy, with a real instance whose
integration already has a manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.support import fault_actions as act
from tests.support.fault_proxy import At

CREDENTIALS = "GET /dbt/v3/validate-credentials"
PERMISSIONS = "GET /dbt/v1/validate-permissions"
SIGNED_URL = "GET /dbt/v1/signed_url"
PUT = "PUT /files/"
VERIFY = "POST /dbt/v1/verify_upload"
INGESTION = "POST /dbt/v1/start_dbt_ingestion"
FETCH_URL = "GET /dbt/v1/fetch_artifact_url"
DOWNLOAD = "GET /files/"

HTML = {"Content-Type": "text/html"}
BAD_GATEWAY = b"<html><body><h1>502 Bad Gateway</h1><hr>nginx</body></html>"
LOG_IN = b"<html><form action=/login><input name=password type=password></form></html>"
EXPIRED = (
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>"
    b"<Message>Request has expired</Message></Error>"
)


def exactly(times: int) -> range:
    """Return the range that contains only this number of requests."""
    return range(times, times + 1)


def several() -> range:
    """Return the range of two or more requests, whose number depends on timing."""
    return range(2, 100)


@dataclass(frozen=True)
class Row:
    """One row of the table.

    message: regular expression that the output must match.
    calls: the number of requests of each kind that reach the proxy.
    manifest_after: the current manifest afterwards, "old" or "new".
    tls: the certificate of the proxy, "none" for no certificate, "" for an http URL.
    environ: {ca} is the file of the test's certificate authority, {closed} the address of a closed
    port, {url} the address of the proxy.
    netrc: the content of ~/.netrc.
    """

    name: str
    fault: At | None
    exit_code: int
    message: str
    calls: Mapping[str, range] = field(default_factory=dict)
    manifest_after: str = "old"
    command: str = "onboard"
    timeout_s: float = 30
    tls: str = ""
    host: str = "127.0.0.1"
    listen_after_s: float | None = 0
    handshakes_cut: int = 0
    reads_silently: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)
    netrc: str = ""

    @property
    def succeeds(self) -> bool:
        """Return whether the command succeeds despite the fault."""
        return self.exit_code == 0


def onboards(
    name: str, fault: At | None = None, calls: Mapping[str, range] | None = None, **more: object
) -> Row:
    """Return a row in which onboarding succeeds despite the fault."""
    return Row(name, fault, 0, 'Onboarded to|"ok": true', calls or {}, "new", **more)  # type: ignore[arg-type]


# Each row is one fault.
# fmt: off
CONNECTION = [
    Row("nothing listens", None, 5, "nothing listens at http://127.0.0.1:", timeout_s=2,
        listen_after_s=None),
    onboards("nothing listens at first", listen_after_s=1.5),
    Row("accepts connections and never responds", None, 5, "did not end within 2 s", timeout_s=2,
        reads_silently=True),
    Row("the name can't be resolved", None, 5, "cannot resolve", timeout_s=2,
        host="instance.invalid"),
    Row("not a web server", At("", act.raw(b"SSH-2.0-OpenSSH_9.2\r\n")), 5,
        "does not use HTTP", timeout_s=2),
    onboards("persistent connections are closed", At("", act.close_after_response)),
]

RESETS = [
    onboards("credentials: reset once", At(CREDENTIALS, act.cut_request(0), 1),
        {CREDENTIALS: exactly(2)}),
    Row("credentials: reset every time", At(CREDENTIALS, act.cut_request(0)), 5,
        "closed the connection", {CREDENTIALS: several(), PUT: exactly(0)}, timeout_s=2),
    onboards("permissions: reset within the head", At(PERMISSIONS, act.cut_answer(20), 1),
        {PERMISSIONS: exactly(2)}),
    onboards("signed_url: no answer, twice", At(SIGNED_URL, act.cut_answer(0), 2),
        {SIGNED_URL: exactly(3)}),
    onboards("signed_url: reset within the body", At(SIGNED_URL, act.cut_answer(330), 1),
        {SIGNED_URL: exactly(2)}),
    onboards("PUT: reset before the body", At(PUT, act.cut_request(0), 1), {PUT: exactly(2)}),
    onboards("PUT: reset after 1 kB, twice", At(PUT, act.cut_request(1000), 2), {PUT: exactly(3)}),
    onboards("PUT: reset after 600 kB", At(PUT, act.cut_request(600000), 1), {PUT: exactly(2)}),
    Row("PUT: reset after 300 kB every time", At(PUT, act.cut_request(300000)), 5,
        "closed the connection", {PUT: several(), VERIFY: exactly(0)}, timeout_s=3),
    onboards("PUT: arrived, the answer is lost", At(PUT, act.cut_answer(0), 1), {PUT: exactly(2)}),
    onboards("verify: reset before it arrives", At(VERIFY, act.cut_request(5), 1),
        {VERIFY: exactly(2)}),
    Row("verify: reset before it arrives, every time", At(VERIFY, act.cut_request(5)), 5,
        "closed the connection", {VERIFY: several()}, timeout_s=2),
    onboards("verify: done, the answer is lost", At(VERIFY, act.cut_answer(0), 1),
        {VERIFY: exactly(2)}),
    Row("verify: done, every answer is lost", At(VERIFY, act.cut_answer(0)), 5,
        "verifying the manifest: .*closed the connection", {VERIFY: several()}, "new", timeout_s=4),
    onboards("ingestion: started, the answer is lost", At(INGESTION, act.cut_answer(0), 1),
        {INGESTION: exactly(2)}),
    Row("ingestion: reset every time", At(INGESTION, act.cut_request(0)), 5,
        "starting the ingestion: .*closed", {INGESTION: several()}, "new", timeout_s=2),
]

STALLS = [
    Row("credentials: silence", At(CREDENTIALS, act.stall), 5,
        "checking the credentials did not end within 2 s", {CREDENTIALS: exactly(1)}, timeout_s=2),
    Row("signed_url: silence within the head", At(SIGNED_URL, act.stall_answer(30)), 5,
        "did not end within 2 s", {SIGNED_URL: exactly(1)}, timeout_s=2),
    Row("PUT: takes 1 kB and no more", At(PUT, act.stall_request(1000)), 5,
        "uploading the manifest did not end", {PUT: exactly(1)}, timeout_s=2),
    Row("PUT: takes all and is silent", At(PUT, act.stall), 5,
        "uploading the manifest did not end within 2 s", {PUT: exactly(1)}, timeout_s=2),
    Row("verify: silence within the body", At(VERIFY, act.stall_answer(350)), 5,
        "verifying the manifest did not end", {VERIFY: exactly(1)}, "new", timeout_s=2),
    Row("PUT: 1 kB/s", At(PUT, act.slow_request), 5,
        "uploading the manifest did not end within 3 s", timeout_s=3),
    onboards("signed_url: 1 kB/s", At(SIGNED_URL, act.slow_answer), {SIGNED_URL: exactly(1)}),
]

DAMAGE = [
    onboards("signed_url: truncated", At(SIGNED_URL, act.cut_body(20), 1),
        {SIGNED_URL: exactly(2)}),
    onboards("verify: truncated", At(VERIFY, act.cut_body(5), 1), {VERIFY: exactly(2)}),
    onboards("credentials: length 50 too large", At(CREDENTIALS, act.wrong_length(50), 1),
        {CREDENTIALS: exactly(2)}),
    onboards("signed_url: length 20 too small", At(SIGNED_URL, act.wrong_length(-20), 1),
        {SIGNED_URL: exactly(2)}),
    Row("signed_url: length 20 too small, every time", At(SIGNED_URL, act.wrong_length(-20)), 5,
        "was incomplete", {SIGNED_URL: several()}, timeout_s=2),
    onboards("PUT: one byte changed on the way", At(PUT, act.corrupt_request, 1),
        {PUT: exactly(2)}),
    Row("PUT: one byte changed on the way, always", At(PUT, act.corrupt_request), 5,
        "changed on the way", {PUT: exactly(2), VERIFY: exactly(0)}),
    onboards("PUT: 100 bytes lost on the way", At(PUT, act.shorten_request, 1), {PUT: exactly(2)}),
    Row("credentials: an answer without end", At(CREDENTIALS, act.never_ending), 5,
        "sends more than 8,388,608 bytes|did not end within 3 s", timeout_s=3),
    Row("signed_url: an answer without end", At(SIGNED_URL, act.never_ending), 5,
        "sends more than 8,388,608 bytes|did not end within 3 s", timeout_s=3),
]

STATUSES = [
    onboards("credentials: 500 once", At(CREDENTIALS, act.answer(500), 1),
        {CREDENTIALS: exactly(2)}),
    onboards("signed_url: 502 with HTML, twice", At(SIGNED_URL, act.answer(502, BAD_GATEWAY, HTML),
        2), {SIGNED_URL: exactly(3)}),
    onboards("PUT: 503 twice", At(PUT, act.answer(503), 2), {PUT: exactly(3)}),
    onboards("verify: 504 once", At(VERIFY, act.answer(504), 1), {VERIFY: exactly(2)}),
    onboards("ingestion: 524 once", At(INGESTION, act.answer(524), 1), {INGESTION: exactly(2)}),
    Row("credentials: 500 every time", At(CREDENTIALS, act.answer(500)), 5, "HTTP 500",
        {CREDENTIALS: several()}, timeout_s=2),
    Row("PUT: 502 with HTML every time", At(PUT, act.answer(502, BAD_GATEWAY, HTML)), 5, "HTTP 502",
        {PUT: several()}, timeout_s=2),
    Row("verify: 503 every time", At(VERIFY, act.answer(503)), 5, "HTTP 503", {VERIFY: several()},
        timeout_s=2),
    Row("ingestion: 504 every time", At(INGESTION, act.answer(504)), 5, "HTTP 504",
        {INGESTION: several()}, "new", timeout_s=2),
    onboards("429 with seconds", At(SIGNED_URL, act.answer(429, headers={"Retry-After": "1"}), 1),
        {SIGNED_URL: exactly(2)}),
    onboards("429 with a date", At(SIGNED_URL, act.answer(429, headers={"Retry-After": "{soon}"}),
        1), {SIGNED_URL: exactly(2)}),
    onboards("429 without Retry-After", At(PUT, act.answer(429), 1), {PUT: exactly(2)}),
    onboards("429 with an invalid Retry-After", At(PUT, act.answer(429,
        headers={"Retry-After": "soon"}), 1), {PUT: exactly(2)}),
    Row("429 beyond the deadline", At(SIGNED_URL, act.answer(429, headers={"Retry-After": "3600"})),
        5, "limits the rate .*; it asks to wait 1 h", {SIGNED_URL: exactly(1)},
        timeout_s=20),
    Row("401", At(CREDENTIALS, act.answer(401, b'{"detail": "no"}')), 3,
        "does not accept the token", {CREDENTIALS: exactly(1), PUT: exactly(0)}),
    Row("402", At(SIGNED_URL, act.answer(402, b'{"detail": "pay"}')), 3, "quota .* exceeded: pay",
        {SIGNED_URL: exactly(1)}),
    Row("403", At(PERMISSIONS, act.answer(403, b'{"detail": "read only"}')), 3,
        "not allowed: read only", {PERMISSIONS: exactly(1)}),
    Row("404", At(SIGNED_URL, act.answer(404, b'{"detail": "no such thing"}')), 4, "no such thing",
        {SIGNED_URL: exactly(1)}),
    Row("413 at the storage", At(PUT, act.answer(413)), 1, "too large for the instance",
        {PUT: exactly(1)}),
    Row("409 by a guard", At(VERIFY, act.answer(409, b'{"detail": "older than the current one"}')),
        1, "older than the current one", {VERIFY: exactly(1)}),
]

ANSWERS = [
    Row("200 with a login page", At("GET", act.answer(200, LOG_IN, HTML)), 5, "login page",
        {CREDENTIALS: exactly(1)}),
    Row("signed_url: null", At(SIGNED_URL, act.answer(200, b"null")), 5,
        "expected an object|not JSON", {PUT: exactly(0)}),
    Row("signed_url: a list", At(SIGNED_URL, act.answer(200, b"[]")), 5,
        "invalid response from the instance: expected"),
    Row("signed_url: an invalid URL", At(SIGNED_URL, act.answer(200,
        b'{"url": "not a url", "dbt_core_integration_file_id": 1}')), 5, "expected 'url'"),
    Row("signed_url: another program's URL", At(SIGNED_URL, act.answer(200,
        b'{"url": "file:///etc/passwd", "dbt_core_integration_file_id": 1}')), 5,
        "expected 'url'"),
    Row("verify: not ok", At(VERIFY, act.answer(200,
        b'{"ok": false, "detail": "the disk is full"}')), 5,
        "did not confirm the upload: the disk is full"),
    Row("ingestion: not ok", At(INGESTION, act.answer(200, b'{"ok": false}')), 5,
        "did not start the ingestion", {}, "new"),
    Row("an error message with terminal sequences", At(SIGNED_URL, act.answer(403,
        b'{"detail": "\\u001b[31mred\\u0007\\u001b]0;owned\\u0007"}')), 3, "not allowed: .*red"),
    onboards("~/.netrc names this host", netrc="machine 127.0.0.1 login user password other\n"),
]

SIGNED = [
    onboards("the signed URL has expired", At(PUT, act.answer(403, EXPIRED), 1),
        {SIGNED_URL: exactly(2)}),
    Row("every signed URL has expired", At(PUT, act.answer(403, EXPIRED)), 3,
        "URL that the instance has just signed", {SIGNED_URL: exactly(2), PUT: exactly(2)}),
]

REDIRECTS = [
    onboards("to the same host", At(SIGNED_URL, act.redirect(307, "{target}&again=1"), 1),
        {SIGNED_URL: exactly(2)}),
    Row("of the API to another host", At(CREDENTIALS, act.redirect(307,
        "http://localhost:{port}{target}")), 2, "to which the token is not sent",
        {CREDENTIALS: exactly(1)}),
    Row("of the API to http", At(CREDENTIALS, act.redirect(302, "http://127.0.0.1:{port}{target}")),
        2, "returned a URL without TLS", {CREDENTIALS: exactly(1)}, tls="good",
        environ={"REQUESTS_CA_BUNDLE": "{ca}"}),
    onboards("of the upload to another host", At(PUT, act.redirect(307,
        "http://localhost:{port}{target}"), 1), {PUT: exactly(2)}),
    Row("of the upload to http elsewhere", At(PUT, act.redirect(307,
        "http://storage.invalid{target}")), 5, "http://storage.invalid is not https",
        {PUT: exactly(1)}),
    Row("in a circle", At(SIGNED_URL, act.redirect(307, "{target}")), 5, "redirects in a circle"),
    Row("that loses the request", At(VERIFY, act.redirect(302, "/somewhere")), 5,
        "would drop the body", {VERIFY: exactly(1)}),
    Row("to an invalid URL", At(SIGNED_URL, act.redirect(307, "http://[broken")), 5,
        "redirect to an invalid URL"),
]

CA = {"REQUESTS_CA_BUNDLE": "{ca}"}

TLS = [
    onboards("private authority by REQUESTS_CA_BUNDLE", tls="good", environ=CA),
    onboards("private authority by SSL_CERT_FILE", tls="good", environ={"SSL_CERT_FILE": "{ca}"}),
    Row("unknown authority", None, 5, "not signed by a trusted authority",
        {CREDENTIALS: exactly(0)}, tls="good"),
    Row("expired certificate", None, 5, "certificate .*it has expired", tls="expired", environ=CA),
    Row("certificate of another host", None, 5, "it is for another host", tls="other host",
        environ=CA),
    onboards("handshake cut twice", tls="good", environ=CA, handshakes_cut=2),
    Row("handshake cut always", None, 5, "TLS handshake with .* failed|closed the connection",
        tls="good", environ=CA, handshakes_cut=10 ** 6, timeout_s=2),
    Row("handshake without a response", None, 5, "did not end within 2 s", tls="good", environ=CA,
        reads_silently=True, timeout_s=2),
    Row("plain http at an https URL", None, 5, "does not use TLS", tls="plain http", timeout_s=5),
    Row("missing file of authorities", None, 2, "REQUESTS_CA_BUNDLE contains .*does not exist",
        tls="good", environ={"REQUESTS_CA_BUNDLE": "{ca}.missing"}),
    Row("file of authorities without certificates", None, 2,
        "REQUESTS_CA_BUNDLE contains .*no certificate", tls="good",
        environ={"REQUESTS_CA_BUNDLE": "{notes}"}),
]

PROXIED = "instance.invalid"  # A loopback address would bypass the proxy.

PROXIES = [
    Row("the proxy is down", None, 5, "proxy", {CREDENTIALS: exactly(0)}, timeout_s=2,
        host=PROXIED, environ={"HTTP_PROXY": "http://user:pass-in-url@{closed}"}),
    onboards("a proxy that is down is not used for this machine",
        environ={"HTTP_PROXY": "http://{closed}", "ALL_PROXY": "http://{closed}"}),
    onboards("NO_PROXY bypasses a proxy that is down", environ={"HTTP_PROXY": "http://{closed}",
        "NO_PROXY": "127.0.0.1"}),
    onboards("through a proxy", host=PROXIED, environ={"HTTP_PROXY": "{url}"}),
    Row("the proxy requires a password", At("CONNECT", act.answer(407)), 5, "proxy",
        {CREDENTIALS: exactly(0)}, tls="none", host=PROXIED, environ={"HTTPS_PROXY": "{url}"},
        timeout_s=3),
    Row("the proxy forbids the host", At("CONNECT", act.answer(403, b"<html>blocked</html>", HTML)),
        5, "proxy", {CREDENTIALS: exactly(0)}, tls="none", host=PROXIED,
        environ={"HTTPS_PROXY": "{url}"}, timeout_s=3),
]


def pulls(name: str, fault: At, calls: Mapping[str, range]) -> Row:
    """Return a row in which pulling succeeds despite the fault."""
    return Row(name, fault, 0, "", calls, "old", "pull")


DOWNLOADS = [
    pulls("fetch_artifact_url: 503 once", At(FETCH_URL, act.answer(503), 1),
        {FETCH_URL: several()}),
    pulls("download: reset within the body", At(DOWNLOAD, act.cut_answer(300000), 1),
        {DOWNLOAD: exactly(2)}),
    pulls("download: truncated twice", At(DOWNLOAD, act.cut_body(1000), 2), {DOWNLOAD: exactly(3)}),
    Row("download: truncated every time", At(DOWNLOAD, act.cut_body(1000)), 5, "was incomplete",
        {DOWNLOAD: several()}, "old", "pull", timeout_s=2),
    pulls("download: one byte changed", At(DOWNLOAD, act.corrupt_answer, 1),
        {DOWNLOAD: exactly(2)}),
    Row("download: one byte changed, always", At(DOWNLOAD, act.corrupt_answer), 5, "sha256", {},
        "old", "pull", timeout_s=10),
    Row("download: length 1000 too small", At(DOWNLOAD, act.wrong_length(-1000)), 5, "", {}, "old",
        "pull", timeout_s=10),
    pulls("download: the signed URL has expired", At(DOWNLOAD, act.answer(403, EXPIRED), 1),
        {FETCH_URL: several()}),
    Row("download: silence within the body", At(DOWNLOAD, act.stall_answer(1000)), 5,
        "did not end within 2 s", {}, "old", "pull", timeout_s=2),
    Row("download: 1 kB/s", At(DOWNLOAD, act.slow_answer), 5, "did not end within 3 s", {}, "old",
        "pull", timeout_s=3),
    Row("download: a body without end", At(DOWNLOAD, act.never_ending), 5,
        "sends more than [0-9,]+ bytes|did not end", {}, "old", "pull", timeout_s=3),
    Row("fetch_artifact_url: 404", At(FETCH_URL, act.answer(404,
        b'{"detail": "nothing uploaded"}')), 4, "has no manifest.json yet",
        {FETCH_URL: exactly(1)}, "old", "pull"),
]
# fmt: on

GROUPS = {
    "connection": CONNECTION,
    "reset": RESETS,
    "stall": STALLS,
    "damage": DAMAGE,
    "status": STATUSES,
    "answer": ANSWERS,
    "signed URL": SIGNED,
    "redirect": REDIRECTS,
    "TLS": TLS,
    "proxy": PROXIES,
    "download": DOWNLOADS,
}
