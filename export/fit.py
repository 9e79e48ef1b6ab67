"""Whether heads fit a model."""

from autodeco.errors import InputError
from autodeco.export.layout import Layout
from autodeco.terminal import one_line


def check_fit(heads: Layout, base: Layout) -> str | None:
    """Compare a file with heads to a file with a model.

    Returns None if the heads were exported for this very file, else one line that warns and names both models. Raises
    InputError if the hidden size or the vocabulary differs: such heads cannot run."""
    for what, theirs, ours in (
        ("a hidden size of {}", heads.embedding_length, base.embedding_length),
        ("a vocabulary of {} tokens", heads.vocab_size, base.vocab_size),
    ):
        if theirs != ours:
            raise InputError(
                f"{heads.path}: the heads are for {what.format(theirs)}, {base.path} has {ours}; "
                f"give the model they were trained on ({heads.base_name})"
            )
    if heads.base_fingerprint == base.model_fingerprint:
        return None
    return one_line(
        f"{heads.path}: the heads were exported for {heads.base_name} ({heads.base_fingerprint[:19]}), {base.path} is "
        f"another file ({base.base_name}, {base.model_fingerprint[:19]}); they run, but may choose badly"
    )
