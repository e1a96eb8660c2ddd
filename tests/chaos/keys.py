"""Keys that are given for a moment, and taken away: what a role's credentials are like."""

import json
import threading
from pathlib import Path

from tests.conftest import Ceph

LIFETIME_S = 601
"""botocore asks again ten minutes ahead: one second after it was given them."""
OVERLAP_S = 70.0
"""obstore holds keys for a minute; a role's own overlap by five."""
GIVE = """#!/bin/sh
echo >>{folder}/given
sed "s/EXPIRATION/$(date -u -d '+{lifetime_s} seconds' +%FT%TZ)/" {folder}/keys.json
"""


class PassingKeys:
    """A `credential_process` of AWS's configuration, and the keys it gives; `variables` lead to it.

    Args:
        folder: for its files.
        store: whose keys they are.
    """

    def __init__(self, folder: Path, store: Ceph) -> None:
        self._folder, self._store, self._number = folder, store, 0
        script = folder / "give.sh"
        script.write_text(GIVE.format(folder=folder, lifetime_s=LIFETIME_S))
        script.chmod(0o755)
        (folder / "config").write_text(f"[default]\nregion = us-east-1\ncredential_process = {script}\n")
        self.variables = {
            "AWS_CONFIG_FILE": str(folder / "config"),
            "AWS_ACCESS_KEY_ID": "",
            "AWS_SECRET_ACCESS_KEY": "",
        }
        self._give_next()

    def replace(self) -> None:
        """Give others from now on; the old ones end while runs go on."""
        end = threading.Timer(OVERLAP_S, self._store.remove_key, [self._name()])
        end.daemon = True
        end.start()
        self._give_next()

    @property
    def num_given(self) -> int:
        return len((self._folder / "given").read_text())

    def _name(self) -> str:
        return f"passing-{self._number}"

    def _give_next(self) -> None:
        self._number += 1
        self._store.add_key(self._name(), "secret")
        given = {"Version": 1, "AccessKeyId": self._name(), "SecretAccessKey": "secret", "Expiration": "EXPIRATION"}
        new = self._folder / "keys.json.new"
        new.write_text(json.dumps(given))
        new.replace(self._folder / "keys.json")
