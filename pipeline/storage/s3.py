"""S3 by one configuration, AWS's own, in the words of each library that speaks to it.

s3fs lists and writes, obstore reads images, delta-rs keeps the table. What botocore finds (environment, profiles of
`~/.aws`, web identity, container or instance role) is given to all three, so that one URL means one place to them.
"""

import os
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import botocore
import botocore.session
import obstore
import s3fs
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from obstore.store import S3Store

from pipeline.errors import SettingError, reason
from pipeline.storage.table_files import WORK_FOLDER

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials
    from obstore.store import ClientConfig, RetryConfig, S3Credential

RETRY_S = 180
"""For so long a request is repeated."""
RETRIES: "RetryConfig" = {
    "max_retries": 1000,  # that is, the time alone: by chance 15 were used up within 11 s
    "retry_timeout": timedelta(seconds=RETRY_S),
    "backoff": {"init_backoff": timedelta(seconds=0.5), "max_backoff": timedelta(seconds=10), "base": 2},
}
"""Shorter settings lost 63 of 64 objects in an outage of 10 s."""

TABLE_RETRIES = {
    "max_retries": "1000",
    "retry_timeout": f"{RETRY_S}s",
    "backoff_config.init_backoff": "500ms",
    "backoff_config.max_backoff": "10s",
    "backoff_config.base": "2",
}
"""The same for delta-rs, which by itself gave up after 2 s."""

PATIENCE_AT_START: "RetryConfig" = RETRIES | {"retry_timeout": timedelta(seconds=40)}
"""For the first request: an outage is waited for, and a wrong setting said before a person has gone."""

CREDENTIALS_HELD = timedelta(seconds=60)
"""After this obstore asks botocore again, which renews what expires ten minutes ahead."""

REQUEST_PAYER = "AWS_REQUEST_PAYER"
PLACE = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", REQUEST_PAYER)
"""Variables that say where a bucket is, and hold no secret."""


class S3Access:
    """What this process's surroundings say of S3, found once; wrong settings are errors here, before anything runs.

    Raises:
        SettingError: a profile that does not exist, no credentials, no region, a CA bundle that is not there.
    """

    def __init__(self) -> None:
        session = botocore.session.Session()
        try:
            self.region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
            credentials = session.get_credentials()
            self._client = session.create_client(
                "s3", region_name=self.region, config=Config(signature_version=botocore.UNSIGNED)
            )
            ca_bundle = session.get_config_variable("ca_bundle")
        except (BotoCoreError, ValueError) as error:
            raise SettingError(f"S3: {reason(error)}; see AWS_PROFILE and the files in ~/.aws") from error
        if credentials is None:
            raise SettingError(
                "S3: no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
                "or run where a role is given"
            )
        self._credentials = credentials
        self.credentials()
        self.requester_pays = _requester_pays()
        self._root_certificates = _trusted(ca_bundle) if ca_bundle else None
        self._client.meta.events.register("before-send.s3.HeadObject", _answer_with_url)

    def credentials(self) -> "ReadOnlyCredentials":
        """Key, secret and token of now; botocore renews them before they expire.

        Raises:
            SettingError: the source that is set gives none.
        """
        try:
            return self._credentials.get_frozen_credentials()
        except (BotoCoreError, OSError) as error:
            raise SettingError(f"S3: no credentials: {reason(error)}") from error

    def place(self, bucket: str) -> tuple[str, str]:
        """The URL that stands for a bucket, and the region that signatures name.

        botocore alone decides on host, path style, dual stack, FIPS, acceleration and access points.
        """
        try:
            url: str = self._client.head_object(Bucket=bucket, Key="key")["ResponseMetadata"]["HTTPHeaders"]["location"]
        except BotoCoreError as error:
            raise SettingError(f"bucket {bucket!r}: {reason(error)}") from error
        if self.region is None and (urlsplit(url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn")):
            raise SettingError("S3: no region is set; set AWS_REGION to that of the bucket")
        return url.removesuffix("/key"), self.region or "us-east-1"

    def client_options(self, url: str) -> "ClientConfig":
        """obstore's, for a bucket's URL."""
        options: ClientConfig = {"allow_http": url.startswith("http://")}
        if self._root_certificates:
            options["root_certificate"] = self._root_certificates
        return options


def _answer_with_url(request: Any, **_: Any) -> AWSResponse:
    """Instead of a request: where it would go."""
    return AWSResponse(request.url, 200, {"location": request.url}, SimpleNamespace(stream=lambda: iter([b""])))


def _requester_pays() -> bool:
    value = os.environ.get(REQUEST_PAYER, "")
    if value not in ("", "requester"):
        raise SettingError(f"{REQUEST_PAYER}={value!r}: set it to requester, or not at all")
    return value == "requester"


def _trusted(ca_bundle: str) -> bytes:
    """The certificates that botocore trusts; delta-rs has no setting for them, and reads a variable of its own."""
    try:
        certificates = Path(ca_bundle).read_bytes()
    except OSError as error:
        raise SettingError(f"AWS_CA_BUNDLE={ca_bundle!r} can't be read: {reason(error)}") from error
    os.environ["SSL_CERT_FILE"] = ca_bundle
    return certificates


@cache
def access() -> S3Access:
    """This process's."""
    return S3Access()


@cache
def filesystem() -> s3fs.S3FileSystem:
    """For listing, whole small files and odd keys; one for all threads, where fsspec by itself makes one for each."""
    return _filesystem(s3fs.S3FileSystem)


@cache
def data_filesystem() -> s3fs.S3FileSystem:
    """For DuckDB's reading of data files, which never change once they are there."""
    return _filesystem(_DataFiles)


class _DataFiles(s3fs.S3FileSystem):  # type: ignore[misc]
    """Asks for each file's size once, where DuckDB has it asked 14 times: small files are read in a fifth of the time."""

    cachable = False  # by fsspec: `data_filesystem` does

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._known: dict[str, dict[str, Any]] = {}

    async def _info(self, path: str, *arguments: Any, **named: Any) -> dict[str, Any]:
        name = self._strip_protocol(path)
        if name in self._known:
            return self._known[name]
        info: dict[str, Any] = await super()._info(path, *arguments, **named)
        if f"/{WORK_FOLDER}/" not in name:  # the records of runs do change
            self._known[name] = info
        return info


def _filesystem(kind: type[s3fs.S3FileSystem]) -> s3fs.S3FileSystem:
    here = access()
    return kind(
        use_listings_cache=False,
        client_kwargs={"region_name": here.region},
        config_kwargs={"retries": {"mode": "standard", "max_attempts": 10}},
        s3_additional_kwargs={"RequestPayer": "requester"} if here.requester_pays else {},
    )


@cache
def image_store(bucket: str, is_patient: bool = True) -> S3Store:
    """For reading images; shared by all threads. One that is not patient tries once, and so tells of each failure."""
    return _store(bucket, RETRIES if is_patient else {"max_retries": 0})


def _store(bucket: str, retries: "RetryConfig") -> S3Store:
    here = access()
    url, region = here.place(bucket)

    def credentials() -> "S3Credential":
        now = here.credentials()
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": datetime.now(UTC) + CREDENTIALS_HELD,
        }

    return S3Store(
        bucket,
        aws_endpoint_url_s3=url,  # of all names for it the one that the environment can't overrule
        virtual_hosted_style_request=True,  # that is: the endpoint stands for the bucket, whichever its style
        region=region,
        request_payer=here.requester_pays,
        credential_provider=credentials,
        client_options=here.client_options(url),
        retry_config=retries,
    )


def check_images_readable(bucket: str) -> None:
    """Make sure that obstore reaches what s3fs has listed, before a million images fail one by one.

    Raises:
        SettingError: it is not answered, or answered by a redirect to another region.
    """
    try:
        obstore.head(_store(bucket, PATIENCE_AT_START), "ssd-batch-is-there-such-a-key")
    except (FileNotFoundError, obstore.exceptions.PermissionDeniedError):
        return
    except obstore.exceptions.BaseError as error:
        raise SettingError(f"bucket {bucket!r} can be listed, but its images can't be read: {reason(error)}") from error


def is_slow_down(error: BaseException) -> bool:
    """Has the store refused a request as one too many? obstore has no class for it."""
    return "503 Service Unavailable" in str(error)


def table_options(bucket: str) -> dict[str, str]:
    """What delta-rs is told; its own reading of the environment is overruled."""
    here = access()
    (url, region), now = here.place(bucket), here.credentials()
    return {
        "AWS_ENDPOINT_URL": url,  # else delta-rs asks for credentials of its own
        "AWS_ENDPOINT_URL_S3": url,  # the name that the environment can't overrule
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_ALLOW_HTTP": str(url.startswith("http://")).lower(),
        "AWS_REGION": region,
        "AWS_ACCESS_KEY_ID": now.access_key,
        "AWS_SECRET_ACCESS_KEY": now.secret_key,
        "AWS_SESSION_TOKEN": now.token or "",
        "AWS_REQUEST_PAYER": str(here.requester_pays).lower(),
        **TABLE_RETRIES,
    }


def place_variables() -> dict[str, str]:
    """What other nodes must be told, so that a URL means the same bucket there; credentials stay each node's own."""
    return {name: os.environ[name] for name in PLACE if name in os.environ}
