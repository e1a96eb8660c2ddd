"""What the jobs' account may do on S3 is what a night does, and no more: a real gateway says so."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError

from tests.conftest import Ceph
from tests.e2e.command import infer, jpeg

ROOT = Path(__file__).parents[2]
POLICY = json.loads((ROOT / "infra/s3-policy.json").read_text())
MODEL = ROOT / "jobs/demo/model"
KEYS = {"AWS_ACCESS_KEY_ID": "nightly", "AWS_SECRET_ACCESS_KEY": "nightly-secret"}


def client(environment: dict[str, str]) -> Any:
    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL_S3"],
        region_name=environment["AWS_DEFAULT_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


@pytest.fixture
def account(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """What reaches S3 as an account with the policy; the bucket and what is in it are another's."""
    if "ceph" not in (request.config.getoption("--s3") or []):
        pytest.skip("moto knows no policies: make test-s3 runs this")
    with tempfile.TemporaryDirectory(prefix="ceph-") as folder:
        ceph = Ceph(folder)
        try:
            ceph.start()
            make_user(folder)
            fill_bucket(client(ceph.variables))
            yield ceph.variables | KEYS
        finally:
            ceph.stop()


def make_user(folder: str) -> None:
    user = ["radosgw-admin", "user", "create", "--uid=nightly", "--display-name=nightly"]
    keys = [f"--access-key={KEYS['AWS_ACCESS_KEY_ID']}", f"--secret-key={KEYS['AWS_SECRET_ACCESS_KEY']}"]
    subprocess.run(
        [*user, *keys], env=os.environ | {"CEPH_CONF": f"{folder}/ceph.conf"}, check=True, capture_output=True
    )


def fill_bucket(owner: Any) -> None:
    owner.create_bucket(Bucket="bucket")
    for number in range(3):
        owner.put_object(Bucket="bucket", Key=f"photos/{number}.jpg", Body=jpeg(number))
    for path in MODEL.iterdir():
        owner.put_object(Bucket="bucket", Key=f"models/detector/{path.name}", Body=path.read_bytes())
    owner.put_object(Bucket="bucket", Key="secrets/key", Body=b"")
    principal = {"Principal": {"AWS": ["arn:aws:iam:::user/nightly"]}}
    policy = POLICY | {"Statement": [statement | principal for statement in POLICY["Statement"]]}
    owner.put_bucket_policy(Bucket="bucket", Policy=json.dumps(policy))


@pytest.mark.s3
@pytest.mark.slow
def test_a_night_needs_no_more(account: dict[str, str]) -> None:
    places = (
        "--input",
        "s3://bucket/photos",
        "--table",
        "s3://bucket/tables/detections",
        "--model",
        "s3://bucket/models/detector",
    )
    assert infer(*places, environment=account)["ok"] == 3
    assert infer(*places, environment=account)["already_done"] == 3

    nightly = client(account)
    forbidden = {
        "an image overwritten": lambda: nightly.put_object(Bucket="bucket", Key="photos/0.jpg", Body=b""),
        "an image deleted": lambda: nightly.delete_object(Bucket="bucket", Key="photos/0.jpg"),
        "a model overwritten": lambda: nightly.put_object(Bucket="bucket", Key="models/detector/model.json", Body=b""),
        "something else read": lambda: nightly.get_object(Bucket="bucket", Key="secrets/key"),
    }
    for what, attempt in forbidden.items():
        with pytest.raises(ClientError, match="AccessDenied"):
            pytest.fail(f"{what}: {attempt()}")
