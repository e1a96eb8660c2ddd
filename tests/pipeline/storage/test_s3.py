"""One configuration for all libraries: each way of giving it serves listing, reading images, and the table alike."""

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from obstore.exceptions import PermissionDeniedError

from pipeline.errors import SettingError
from pipeline.images.read import read_version
from pipeline.storage import create_once, store
from pipeline.storage import s3 as s3_module
from pipeline.table.delta import ResultTable
from pipeline.table.query import query

pytestmark = pytest.mark.s3


class Identity(ThreadingHTTPServer):
    """Gives credentials as a container, an instance and the token service of AWS do; each answer has a token of its own."""

    def __init__(self, key: str, secret: str, lifetime: timedelta) -> None:
        super().__init__(("127.0.0.1", 0), IdentityAnswers)
        self.key, self.secret, self.lifetime, self.num_given = key, secret, lifetime, 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def give(self) -> dict[str, str]:
        self.num_given += 1
        expires = (datetime.now(UTC) + self.lifetime).strftime("%Y-%m-%dT%H:%M:%SZ")
        keys = {"AccessKeyId": self.key, "SecretAccessKey": self.secret, "Token": f"token-{self.num_given}"}
        return keys | {"Expiration": expires, "Code": "Success"}


class IdentityAnswers(BaseHTTPRequestHandler):
    server: Identity

    def do_PUT(self) -> None:
        self.answer("instance-token")

    def do_GET(self) -> None:
        self.answer("role" if self.path.endswith("/security-credentials/") else json.dumps(self.server.give()))

    def do_POST(self) -> None:
        given = self.server.give()
        given["SessionToken"] = given.pop("Token")
        given.pop("Code")
        fields = "".join(f"<{name}>{value}</{name}>" for name, value in given.items())
        action = "AssumeRoleWithWebIdentity"
        self.answer(
            f"<{action}Response><{action}Result><Credentials>{fields}</Credentials></{action}Result></{action}Response>"
        )

    def answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def nothing_set(s3, monkeypatch, tmp_path) -> Iterator[None]:
    """The server's place alone; no credentials, no files of AWS's."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    s3.forget()
    yield
    monkeypatch.undo()
    s3.forget()


@pytest.fixture
def identity(s3, nothing_set) -> Iterator[Identity]:
    server = Identity(*keys_of(s3), lifetime=timedelta(hours=1))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def keys_of(s3) -> tuple[str, str]:
    credentials = s3.client._request_signer._credentials
    return credentials.access_key, credentials.secret_key


def everything_works(bucket: str, rows) -> None:
    """List, read an ordinary and an odd key, write, and append to and query a table."""
    for key in ("in/a.jpg", "in/odd//b.jpg"):
        store.write(f"s3://{bucket}/{key}", key.encode())
    entries = [entry for page in store.walk(f"s3://{bucket}/in") for entry in page]
    assert sorted(entry.uri for entry in entries) == [f"s3://{bucket}/in/a.jpg", f"s3://{bucket}/in/odd//b.jpg"]
    for entry in entries:
        assert entry.uri.endswith(read_version(entry.uri, entry.etag, entry.size_bytes).data.decode())
    s3_module.check_images_readable(bucket)
    table = ResultTable(f"s3://{bucket}/table")
    table.create()
    table.append(rows.table(rows.ok("a")))
    with query(ResultTable(table.url), "SELECT uri FROM images") as relation:
        assert relation.fetchall() == [("a",)]


def test_environment(s3, rows):
    everything_works(s3.bucket(), rows)


@pytest.mark.parametrize("where", ["credentials", "config", "process"])
def test_profile(where, s3, nothing_set, monkeypatch, tmp_path, rows):
    """Keys, region and endpoint, all in files."""
    key, secret = keys_of(s3)
    keys = f"aws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
    place = f"region = us-east-1\nservices = here\n[services here]\ns3 =\n  endpoint_url = {os.environ['AWS_ENDPOINT_URL_S3']}\n"
    if where == "process":
        answer = json.dumps({"Version": 1, "AccessKeyId": key, "SecretAccessKey": secret})
        (tmp_path / "answer.json").write_text(answer)
        keys = f"credential_process = cat {tmp_path}/answer.json\n"
    if where == "credentials":
        (tmp_path / "AWS_SHARED_CREDENTIALS_FILE").write_text(f"[night]\n{keys}")
        keys = ""
    (tmp_path / "AWS_CONFIG_FILE").write_text(f"[profile night]\n{keys}{place}")
    bucket = s3.bucket()
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "night")
    everything_works(bucket, rows)


def test_container_role(s3, identity, monkeypatch, rows):
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{identity.url}/container")
    everything_works(s3.bucket(), rows)
    assert identity.num_given


def test_instance_role(s3, identity, monkeypatch, rows):
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", identity.url)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    everything_works(s3.bucket(), rows)
    assert identity.num_given


def test_web_identity(s3, identity, monkeypatch, tmp_path, rows):
    (tmp_path / "token").write_text("from the cluster")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/night")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", identity.url)
    everything_works(s3.bucket(), rows)
    assert identity.num_given


def test_credentials_that_expire_are_renewed(s3, identity, monkeypatch, rows):
    """botocore renews ten minutes ahead, so these at each use; an open table and an open store go on with the new ones."""
    identity.lifetime = timedelta(minutes=5)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{identity.url}/container")
    bucket = s3.bucket()
    table = ResultTable(f"s3://{bucket}/table")
    table.create()
    for name in ("a", "b"):
        before = store.table_options(table.url)["AWS_SESSION_TOKEN"]
        table.append(rows.table(rows.ok(name)))
        assert table._options["AWS_SESSION_TOKEN"] != before
    with query(ResultTable(table.url), "SELECT uri FROM images ORDER BY 1") as relation:
        assert relation.fetchall() == [("a",), ("b",)]


def test_what_the_environment_says_beside_a_profile_does_not_mix_in(s3, nothing_set, monkeypatch, tmp_path, rows):
    """delta-rs and obstore read variables of their own accord."""
    key, secret = keys_of(s3)
    (tmp_path / "AWS_SHARED_CREDENTIALS_FILE").write_text(
        f"[night]\naws_access_key_id={key}\naws_secret_access_key={secret}\n"
    )
    bucket = s3.bucket()
    monkeypatch.setenv("AWS_PROFILE", "night")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of another day")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "false")
    everything_works(bucket, rows)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "no credentials found"),
        ({"AWS_PROFILE": "nobody"}, "nobody"),
        ({"AWS_ACCESS_KEY_ID": "only"}, "Partial credentials"),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/"}, "container-role"),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REQUEST_PAYER": "me"}, "AWS_REQUEST_PAYER='me'"),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_CA_BUNDLE": "/none.pem"}, "AWS_CA_BUNDLE"),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL_S3": "what"}, "what"),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL_S3": ""}, "set AWS_REGION"),
    ],
)
def test_what_can_not_work_is_a_wrong_setting(variables, message, nothing_set, monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingError, match=message):
        s3_module.table_options("bucket")


def test_a_bucket_that_no_library_can_name_is_a_wrong_setting(s3):
    with pytest.raises(SettingError, match="bucket 'a b'"):
        ResultTable("s3://a b/table")


@pytest.mark.parametrize(
    ("bucket", "variables", "config", "expected"),
    [
        ("photos", {}, "", "https://photos.s3.eu-west-1.amazonaws.com"),
        ("with.dots", {}, "", "https://s3.eu-west-1.amazonaws.com/with.dots"),
        ("photos", {}, "s3 =\n  addressing_style = path\n", "https://s3.eu-west-1.amazonaws.com/photos"),
        ("photos", {"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "", "https://photos.s3.dualstack.eu-west-1.amazonaws.com"),
        ("photos", {}, "s3 =\n  use_accelerate_endpoint = true\n", "https://photos.s3-accelerate.amazonaws.com"),
        ("photos", {"AWS_ENDPOINT_URL": "http://store:9000"}, "", "http://store:9000/photos"),
        ("photos", {}, "endpoint_url = https://store\ns3 =\n  addressing_style = virtual\n", "https://photos.store"),
    ],
)
def test_the_place_of_a_bucket_is_botocores(bucket, variables, config, expected, nothing_set, monkeypatch, tmp_path):
    (tmp_path / "AWS_CONFIG_FILE").write_text(f"[default]\nregion = eu-west-1\n{config}")
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    for name, value in variables.items() | {("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")}:
        monkeypatch.setenv(name, value)
    assert s3_module.access().place(bucket) == (expected, "eu-west-1")


STUBBORN_SERVER = Path(__file__).parent / "programs/stubborn_server.py"


@contextmanager
def stubborn_server(s3, monkeypatch, status: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, STUBBORN_SERVER, str(status)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        with monkeypatch.context() as environment:
            environment.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{int(server.stdout.readline())}")
            s3.forget()
            yield server
        s3.forget()
        server.kill()


def test_a_store_that_creates_twice_is_refused(s3, monkeypatch):
    with stubborn_server(s3, monkeypatch, 200), pytest.raises(SettingError, match="does not know If-None-Match"):
        create_once.check_creates_once("bucket", "table")
    with stubborn_server(s3, monkeypatch, 403), pytest.raises(SettingError, match="'bucket' can't be written"):
        create_once.check_creates_once("bucket", "table")
    bucket = s3.bucket()
    create_once.check_creates_once(bucket, "table")
    assert "Contents" not in s3.client.list_objects_v2(Bucket=bucket)


def test_the_probe_of_a_store_bears_a_lost_answer(s3, monkeypatch):
    """botocore asks once more, and is told that the object is there."""
    fs, bucket, num_calls = s3_module.filesystem(), s3.bucket(), itertools.count()
    call_s3 = fs.call_s3

    def call(method: str, **arguments: object) -> object:
        if next(num_calls) == 0:
            call_s3(method, **arguments)
        return call_s3(method, **arguments)

    monkeypatch.setattr(fs, "call_s3", call)
    create_once.check_creates_once(bucket, "table")
    assert "Contents" not in s3.client.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize("payer", ["requester", None])
def test_requester_pays_on_each_request(payer, s3, monkeypatch):
    if payer:
        monkeypatch.setenv("AWS_REQUEST_PAYER", payer)
    with stubborn_server(s3, monkeypatch, 403) as server:
        for refused in (
            lambda: list(store.walk("s3://bucket/in")),
            lambda: store.stat("s3://bucket/a.jpg"),
            lambda: store.write("s3://bucket/a.jpg", b"a"),
            lambda: read_version("s3://bucket/a.jpg", "", None),
            lambda: read_version("s3://bucket/odd//a.jpg", "", None),
            lambda: ResultTable("s3://bucket/table"),
        ):
            with pytest.raises((PermissionError, PermissionDeniedError, SettingError)):
                refused()
        server.kill()
        seen = [json.loads(line) for line in server.communicate()[0].splitlines()]
    assert len(seen) >= 6
    assert {headers.get("x-amz-request-payer") for headers in seen} == {payer}


@pytest.fixture
def tls(tmp_path) -> Iterator[tuple[str, str]]:
    """moto behind TLS, by a certificate that only an authority of our own vouches for; its URL and the authority's file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "our own authority")])

    def certificate(name: x509.Name, public_key: ec.EllipticCurvePublicKey, is_authority: bool) -> bytes:
        builder = x509.CertificateBuilder(authority, name, public_key, x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        return (
            builder.add_extension(here, critical=False)
            .sign(key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    servers_key = ec.generate_private_key(ec.SECP256R1())
    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    (tmp_path / "ca.pem").write_bytes(certificate(authority, key.public_key(), is_authority=True))
    (tmp_path / "cert.pem").write_bytes(certificate(server_name, servers_key.public_key(), is_authority=False))
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(servers_key.private_bytes(*pem))
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as free:
        port = free.server_address[1]
    files = ["-c", f"{tmp_path}/cert.pem", "-k", f"{tmp_path}/key.pem"]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), *files]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with server:
        assert server.stderr is not None
        next(line for line in server.stderr if "Running on" in line)
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield f"https://127.0.0.1:{port}", f"{tmp_path}/ca.pem"
        server.kill()


TLS_JOB = Path(__file__).parent / "programs/read_and_create_over_tls.py"


def test_tls_by_an_own_authority(tls):
    """In a process of its own: the libraries in Rust read certificates once."""
    url, authority = tls
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SSL_"))}
    environment |= {"AWS_ENDPOINT_URL_S3": url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    environment |= {"AWS_CA_BUNDLE": authority}
    job = subprocess.run([sys.executable, TLS_JOB], env=environment, capture_output=True, text=True)
    assert (job.returncode, job.stdout) == (0, "True\n"), job.stderr
