"""Gives all requests the same answer, and prints their headers. A process of its own: delta-rs keeps Python's lock while it waits."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Stubborn(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        print(json.dumps({name.lower(): value for name, value in self.headers.items()}), flush=True)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(int(sys.argv[1]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PUT = do_HEAD = do_DELETE = answer


server = ThreadingHTTPServer(("127.0.0.1", 0), Stubborn)
print(server.server_address[1], flush=True)
server.serve_forever()
