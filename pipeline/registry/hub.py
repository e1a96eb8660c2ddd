"""Push a package to the Hugging Face Hub. Packages there are read by URL, as from any store: hf://NAME/REPOSITORY."""

import re
from dataclasses import dataclass
from importlib.util import find_spec

from pipeline.errors import SettingError, SsdBatchError, reason
from pipeline.registry.card import card
from pipeline.registry.packages import read_files

HUB = re.compile(r"hf://([\w.-]+/[\w.-]+)/?")
CARD_FILE = "README.md"


@dataclass(frozen=True)
class Pushed:
    """The result of a push."""

    to: str
    model_digest: str
    commit_url: str


def push(model: str, to: str, is_private: bool) -> Pushed:
    """Push a package's files and its card, as one commit. The repository is made if it does not exist.

    Args:
        model: the package: a folder or URL, or a published model.
        to: hf://NAME/REPOSITORY.
        is_private: a new repository is private.

    Raises:
        SettingError: the package can't be read, the place is not in the hub, or huggingface_hub is not installed.
        SsdBatchError: the hub refuses the push, or does not answer.
    """
    if not (place := HUB.fullmatch(to)):
        raise SettingError(f"to {to!r} must be hf://NAME/REPOSITORY")
    if not find_spec("huggingface_hub"):
        raise SettingError(f"to {to!r} needs huggingface_hub: pip install 'ssd-batch[hub]'")
    files = read_files(model)
    if not files.record.class_names:
        raise SettingError(f"model {model!r} is a trunk, and detects nothing; push a detector")
    from huggingface_hub import CommitOperationAdd, HfApi

    content = {**files.content, CARD_FILE: card(files, to).encode()}
    try:
        api, name = HfApi(), place[1]
        api.create_repo(name, private=is_private, exist_ok=True)
        added = [CommitOperationAdd(path, data) for path, data in content.items()]
        done = api.create_commit(name, added, commit_message=f"{files.record.name} {files.digest[:12]}")
    except Exception as error:  # the hub's own errors, and those of whatever library it speaks HTTP with
        raise SsdBatchError(f"{to} can't be written: {reason(error)}; a token of yours must be in HF_TOKEN") from error
    return Pushed(to, files.digest, done.commit_url)
