"""What is written down has no secrets, and loses nothing else."""

import pytest

from pipeline.redaction import has_secret, redacted, redacted_json


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (
            "https://b.s3.amazonaws.com/a.jpg?X-Amz-Credential=AK&X-Amz-Signature=51 was not read",
            "https://b.s3.amazonaws.com/a.jpg was not read",
        ),
        ("s3://b/a.jpg?X-Amz-Signature=51&x=1: no", "s3://b/a.jpg?X-Amz-Signature=***&x=1: no"),
        ("az://c/a.jpg?sv=2024&sig=a%2Bb%3D'", "az://c/a.jpg?sv=2024&sig=***'"),
        ("gs://b/a?X-Goog-Signature=51", "gs://b/a?X-Goog-Signature=***"),
        ("http://h/a?token=51", "http://h/a"),
        ("postgresql://user:pass@h/db is down", "postgresql://h/db is down"),
        ("AWS_SECRET_ACCESS_KEY=51, AWS_SESSION_TOKEN=52;", "AWS_SECRET_ACCESS_KEY=***, AWS_SESSION_TOKEN=***;"),
        ("Authorization: Bearer 51", "Authorization: Bearer ***"),
        ("set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH", "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"),
        ("password='x y', user='u'", "password='***', user='u'"),
        ('{"password": "x y", "n": 1}', '{"password": "***", "n": 1}'),
        ("{'api_key': '51'}", "{'api_key': '***'}"),
        (r"{\"token\": \"51\", \"n\": 1}", r"{\"token\": \"***\", \"n\": 1}"),
        ("Authorization: Basic dTpw", "Authorization: Basic ***"),
        ("{'Authorization': 'Basic dTpw'}", "{'Authorization': 'Basic ***'}"),
        (
            "Authorization: AWS4-HMAC-SHA256 Credential=AK/1, SignedHeaders=host, Signature=51",
            "Authorization: *** Credential=***, SignedHeaders=host, Signature=***",
        ),
        ("AccountName=n;AccountKey=51==;EndpointSuffix=x", "AccountName=n;AccountKey=***;EndpointSuffix=x"),
        ("api_key=51&n=1", "api_key=***&n=1"),
        ("--password 51 --n 1", "--password *** --n 1"),
        ("password: 51", "password: ***"),
        (
            "DB_PASS=51 PGPASS=52 S3_PASS=53 --ftp-pass 54 DB_USER=u",
            "DB_PASS=*** PGPASS=*** S3_PASS=*** --ftp-pass *** DB_USER=u",
        ),
        ("{'X-Amz-Security-Token': b'51', 'n': b'1'}", "{'X-Amz-Security-Token': b'***', 'n': b'1'}"),
        ("https://u:p/w@host/x", "https://host/x"),
        ("https://u:p@w@host/x?n=1", "https://host/x"),
        ("https://51@host/x", "https://host/x"),
        ("https://u:51@host/a.jpg?sig=51#x", "https://host/a.jpg"),
        ("http://51@host:5000/a", "http://host:5000/a"),
        ("filecache::https://u:51@host/a?x zip://b", "filecache::https://host/a zip://b"),
        ("redis://:51@host/0", "redis://host/0"),
        ("key=-----BEGIN PRIVATE KEY-----\n51\n-----END PRIVATE KEY-----", "key=***"),
    ],
)
def test_no_secret_is_written_down(text: str, written: str) -> None:
    assert redacted(text) == written


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a=1/sign.jpg, batch_size=8",
        "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH",
        "http://minio:9000/bucket/a@2x.jpg",
        "s3://bucket/2026-01-01T00:00/a@b.jpg",
        "s3://bucket/token=3/signature=ok/a.jpg",
        "sftp://user@host/a.jpg",
        "/data/a?b@c:d.jpg",
        "token={token}/signature={signature}",
        "s3://bucket/a@b:c?d#e.jpg",
        "abfs://container@account.dfs/a.jpg",
        "sqlite:///runs.db",
        "credentials: none were found",
        "num_tokens=5, key=7, primary_key: id",
        "pass=2 of 3, first_pass_images=4, bypass=5, orbit_pass = 12, num_per_pass=4, --single-pass 3",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text
    assert not has_secret(text)


def test_json_is_redacted_by_its_names_too() -> None:
    known = {"data": ["https://user:51@host/a"], "more": {"at": "http://host/?token=51", "password": "51"}, "seed": 3}
    expected = {"data": ["https://host/a"], "more": {"at": "http://host/", "password": "***"}, "seed": 3}
    assert redacted_json(known) == expected
