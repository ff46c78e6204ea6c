"""Data sets of the Hugging Face hub: one split of one commit."""

import re
from typing import Any

from alphamed_jax.errors import UserError

_COMMIT = re.compile("[0-9a-f]{40}")


class Gated(UserError):
    """The hub gives a data set only to those who have accepted its terms."""


def commit_of(hub_id: str, revision: str | None) -> str | None:
    """Return the commit that a branch, tag or commit stands for now; None where the hub is silent.

    Args:
      revision: None: the newest.

    Raises:
      UserError: the hub knows no such revision; a branch or tag that nobody can resolve.
    """
    if revision and _COMMIT.fullmatch(revision):
        return revision
    import huggingface_hub
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        return huggingface_hub.HfApi().dataset_info(hub_id, revision=revision).sha
    except RevisionNotFoundError:
        raise UserError(f"{hub_id} has no revision {revision!r} on the Hugging Face hub") from None
    except Exception as error:
        # Offline, no network, no such data set: loading says which, or finds it in the cache.
        if revision is None:
            return None
        raise UserError(
            f"which commit of {hub_id} the revision {revision!r} is only the Hugging Face hub can "
            f"tell, and it does not ({_first_line(error)}); name a commit, of 40 digits"
        ) from error


def load_split(
    hub_id: str, config: str | None, split: str, commit: str | None, name: str
) -> tuple[Any, str | None]:
    """Load a split; return it, and the commit that it is of where hub or cache tell.

    Args:
      commit: as `commit_of` returned it; None: the newest, or what the cache holds.
      name: what the user calls the source.

    Raises:
      Gated: it is not given to everyone.
      UserError: it cannot be loaded, or the cache holds another commit than the one asked for.
    """
    import datasets  # slow to import, and not needed for files

    chosen: dict[str, Any] = {"revision": commit} if commit else {}
    try:
        rows = datasets.load_dataset(hub_id, config, split=split, **chosen)
    except Exception as error:
        if _is_gated(error):
            raise Gated(
                f"{hub_id} is gated: accept its terms at https://huggingface.co/datasets/{hub_id}, "
                "then log in with `hf auth login` (in older versions `huggingface-cli login`) or "
                f"set HF_TOKEN; or pass {name}=FILE with its rows as .jsonl, .parquet or .csv"
            ) from error
        # The hub's client raises errors of half a dozen libraries (network, cache, login, schema).
        raise UserError(
            f"cannot load {hub_id} from the Hugging Face hub ({_first_line(error)}); check the "
            f"network, or pass {name}=FILE with its rows as .jsonl, .parquet or .csv"
        ) from error
    loaded = _commit_of_files(rows)
    # Without the hub, `datasets` takes the newest that it has, whatever revision it is asked for.
    if commit and loaded and commit != loaded:
        raise UserError(
            f"{hub_id}: asked for commit {commit}, but only {loaded} is in the cache and the "
            "Hugging Face hub cannot be reached; check the network"
        )
    return rows, loaded or commit


def _commit_of_files(rows: Any) -> str | None:
    """The commit in the names of the files that a data set was made from, or lies in."""
    names = [str(file["filename"]) for file in getattr(rows, "cache_files", None) or ()]
    names += [str(url) for url in getattr(rows, "download_checksums", None) or ()]
    found = {commit for name in names for commit in re.findall(r"[@/]([0-9a-f]{40})/", name)}
    return found.pop() if len(found) == 1 else None


def _is_gated(error: BaseException) -> bool:
    """Whether the hub's refusal is among the causes of an error."""
    from huggingface_hub.errors import GatedRepoError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, GatedRepoError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
