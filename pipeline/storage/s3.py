"""Access S3 by one configuration, AWS's own, translated for each library that speaks to S3.

botocore lists, s3fs writes, obstore reads images, delta-rs keeps the table. All of them get the settings that botocore finds, so that
one URL means one place to them. botocore looks in the environment, profiles of `~/.aws`, web identity, container or instance role.
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
"""The seconds for which a request is repeated."""
RETRIES: "RetryConfig" = {
    "max_retries": 1000,  # that is, only the time limits them: by chance, 15 were used up within 11 s
    "retry_timeout": timedelta(seconds=RETRY_S),
    "backoff": {"init_backoff": timedelta(seconds=0.5), "max_backoff": timedelta(seconds=10), "base": 2},
}
"""The retries of obstore. Shorter settings lost 63 of 64 objects in an outage of 10 s."""

TABLE_RETRIES = {
    "max_retries": "1000",
    "retry_timeout": f"{RETRY_S}s",
    "backoff_config.init_backoff": "500ms",
    "backoff_config.max_backoff": "10s",
    "backoff_config.base": "2",
}
"""The same retries for delta-rs, which by default gave up after 2 s."""

PATIENCE_AT_START: "RetryConfig" = RETRIES | {"retry_timeout": timedelta(seconds=40)}
"""The retries of the first request. It waits for an outage to end, but reports a wrong setting before the user has left."""

CREDENTIALS_HELD = timedelta(seconds=60)
"""The time after which obstore asks botocore for credentials again. botocore renews them ten minutes before they expire."""

REQUEST_PAYER = "AWS_REQUEST_PAYER"
PLACE = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", REQUEST_PAYER)
"""The environment variables that say where a bucket is, and hold no secret."""


class S3Access:
    """The access to S3 that this process's environment configures, found once. Wrong settings raise here, before anything runs.

    Raises:
        SettingError: a profile or a CA bundle does not exist, or there are no credentials or no region.
    """

    def __init__(self) -> None:
        self._session = session = botocore.session.Session()
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
        """Return the current key, secret and token. botocore renews them before they expire.

        Raises:
            SettingError: the configured source gives no credentials.
        """
        try:
            return self._credentials.get_frozen_credentials()
        except (BotoCoreError, OSError) as error:
            raise SettingError(f"S3: no credentials: {reason(error)}") from error

    def place(self, bucket: str) -> tuple[str, str]:
        """Return the URL that stands for a bucket, and the region that signatures name.

        botocore alone decides on host, path style, dual stack, FIPS, acceleration and access points.
        """
        try:
            url: str = self._client.head_object(Bucket=bucket, Key="key")["ResponseMetadata"]["HTTPHeaders"]["location"]
        except BotoCoreError as error:
            raise SettingError(f"bucket {bucket!r}: {reason(error)}") from error
        if self.region is None and (urlsplit(url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn")):
            raise SettingError("S3: no region is set; set AWS_REGION to that of the bucket")
        return url.removesuffix("/key"), self.region or "us-east-1"

    def client(self, **config: Any) -> Any:
        """Return a client of botocore. Threads may share it."""
        return self._session.create_client("s3", region_name=self.region, config=Config(**config))

    def client_options(self, url: str) -> "ClientConfig":
        """Return the options of obstore's client for a bucket's URL."""
        options: ClientConfig = {"allow_http": url.startswith("http://")}
        if self._root_certificates:
            options["root_certificate"] = self._root_certificates
        return options


def _answer_with_url(request: Any, **_: Any) -> AWSResponse:
    """Return an answer with the URL to which a request would go, instead of sending the request."""
    return AWSResponse(request.url, 200, {"location": request.url}, SimpleNamespace(stream=lambda: iter([b""])))


def _requester_pays() -> bool:
    value = os.environ.get(REQUEST_PAYER, "")
    if value not in ("", "requester"):
        raise SettingError(f"{REQUEST_PAYER}={value!r}: set it to requester, or not at all")
    return value == "requester"


def _trusted(ca_bundle: str) -> bytes:
    """Return the certificates that botocore trusts, and set the variable from which delta-rs reads them.

    delta-rs has no setting for certificates, and reads a variable of its own.
    """
    try:
        certificates = Path(ca_bundle).read_bytes()
    except OSError as error:
        raise SettingError(f"AWS_CA_BUNDLE={ca_bundle!r} can't be read: {reason(error)}") from error
    os.environ["SSL_CERT_FILE"] = ca_bundle
    return certificates


@cache
def access() -> S3Access:
    """Return this process's access to S3."""
    return S3Access()


@cache
def filesystem() -> s3fs.S3FileSystem:
    """Return the file system for whole small files and odd keys.

    All threads share one, while fsspec by default makes one per thread.
    """
    return _filesystem(s3fs.S3FileSystem)


@cache
def data_filesystem() -> s3fs.S3FileSystem:
    """Return the file system with which DuckDB reads data files, which never change once they exist."""
    return _filesystem(_DataFiles)


class _DataFiles(s3fs.S3FileSystem):  # type: ignore[misc]
    """Requests each file's size once, while DuckDB asks for it 14 times. Small files are read in a fifth of the time."""

    cachable = False  # by fsspec: `data_filesystem` caches it

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
    """Return the store for reading images, which all threads share. A store that is not patient tries once, and reports each failure."""
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
        aws_endpoint_url_s3=url,  # of all names for the URL, the one that the environment can't overrule
        virtual_hosted_style_request=True,  # that is: the endpoint stands for the bucket, whatever its style
        region=region,
        request_payer=here.requester_pays,
        credential_provider=credentials,
        client_options=here.client_options(url),
        retry_config=retries,
    )


def check_images_readable(bucket: str) -> None:
    """Check that obstore reaches the bucket that botocore has listed, before a million images fail one by one.

    Raises:
        SettingError: the request is not answered, or answered by a redirect to another region.
    """
    try:
        obstore.head(_store(bucket, PATIENCE_AT_START), "ssd-batch-is-there-such-a-key")
    except (FileNotFoundError, obstore.exceptions.PermissionDeniedError):
        return
    except obstore.exceptions.BaseError as error:
        raise SettingError(f"bucket {bucket!r} can be listed, but its images can't be read: {reason(error)}") from error


def is_slow_down(error: BaseException) -> bool:
    """Is this the error of a store that refused a request as one too many? obstore has no class for it."""
    return "503 Service Unavailable" in str(error)


def table_options(bucket: str) -> dict[str, str]:
    """Return the options for delta-rs, which overrule its own reading of the environment."""
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
    """Return the environment variables that other nodes need, so that a URL means the same bucket there.

    Credentials are not among them: each node has its own.
    """
    return {name: os.environ[name] for name in PLACE if name in os.environ}
