"""A host that a session may want to reach: answers every request with what it got, as JSON, or sends whoever asks for
`/to/` and a URL on to there.

Usage: origin.py [CERTIFICATE KEY]; the first line that it writes is its port.
"""

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Origin(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        got = {"method": self.command, "path": self.path, "headers": self.headers.items(), "body": body.decode("latin-1")}
        text = json.dumps(got).encode()
        _, is_sent_on, url = self.path.partition("/to/")
        self.send_response(302 if is_sent_on else 200)
        if is_sent_on:
            self.send_header("Location", url)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_TRACE = do_TRACK = answer

    def log_message(self, *_):
        print(self.command, self.path, flush=True)


server = ThreadingHTTPServer(("127.0.0.2", 0), Origin)
if len(sys.argv) > 1:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
