"""A server with the listings of made-up buckets: `python -m tests.benchmarks.s3_pages NUM_KEYS LATENCY_MS`. It prints its URL.

Names are a formula of their number, so that a bucket of any size takes no memory, and a page costs the server less than a client.
"""

import sys
import time
from bisect import bisect_right
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

Name = Callable[[int, int], str]
"""The formula of a name, from its number and the number of all. Names ascend with their numbers."""

LAYOUTS: dict[str, Name] = {
    "flat": lambda number, _: f"images/image-{number:09d}.jpg",
    "hashes": lambda number, num_keys: f"images/{number * 2**64 // num_keys:016x}.jpg",
    "folders": lambda number, num_keys: f"images/site-{number * 50 // num_keys:02d}/image-{number:09d}.jpg",
}
"""The buckets, by name."""
PAGE = 1000
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
HEAD += "<Name>%s</Name><EncodingType>url</EncodingType><IsTruncated>%s</IsTruncated>"
ENTRY = "<Contents><Key>%s</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>&quot;%032x&quot;</ETag>"
ENTRY += "<Size>%d</Size><StorageClass>STANDARD</StorageClass></Contents>"


class Pages(BaseHTTPRequestHandler):
    """Answers ListObjectsV2 without a delimiter, and with one."""

    protocol_version = "HTTP/1.1"
    num_keys = 0
    latency_s = 0.0

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        bucket = url.path.strip("/")
        time.sleep(self.latency_s)
        body = (self._folders if "delimiter" in asked else self._objects)(bucket, asked).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _objects(self, bucket: str, asked: dict[str, str]) -> str:
        first, end = self._range(bucket, asked)
        last = min(first + PAGE, end)
        name = LAYOUTS[bucket]
        entries = [ENTRY % (quote(name(i, self.num_keys)), i, 20_000 + i % 5000) for i in range(first, last)]
        token = f"<NextContinuationToken>{last}</NextContinuationToken>" if last < end else ""
        return f"{HEAD % (bucket, str(last < end).lower())}{token}{''.join(entries)}</ListBucketResult>"

    def _folders(self, bucket: str, asked: dict[str, str]) -> str:
        """Return the folders, or the first objects if there is none."""
        prefix, (first, end) = asked.get("prefix", ""), self._range(bucket, asked)
        folders: list[str] = []
        while first < end and len(folders) < PAGE:
            inner, slash, _ = LAYOUTS[bucket](first, self.num_keys)[len(prefix) :].partition("/")
            if not slash:
                return self._objects(bucket, asked)
            folders.append(f"{prefix}{inner}/")
            first = self._first_after(bucket, folders[-1] + "\U0010ffff")
        found = "".join(f"<CommonPrefixes><Prefix>{quote(folder)}</Prefix></CommonPrefixes>" for folder in folders)
        return f"{HEAD % (bucket, str(first < end).lower())}{found}</ListBucketResult>"

    def _range(self, bucket: str, asked: dict[str, str]) -> tuple[int, int]:
        """Return the numbers of the first key to list, and of the first one behind the prefix."""
        prefix, after = asked.get("prefix", ""), asked.get("start-after", "")
        end = self._first_after(bucket, prefix + "\U0010ffff")
        if token := asked.get("continuation-token"):
            return int(token), end
        first = self._first_after(bucket, after) if after >= prefix else self._first_after(bucket, prefix)
        return min(first, end), end

    def _first_after(self, bucket: str, key: str) -> int:
        return bisect_right(range(self.num_keys), key, key=lambda number: LAYOUTS[bucket](number, self.num_keys))

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    Pages.num_keys, Pages.latency_s = int(sys.argv[1]), float(sys.argv[2]) / 1000
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
