"""Checks objects of KEDA and the Prometheus operator against models made of their published schemas.

The models pass over fields that they do not know. So what they read is written out again: whatever is
not in it then does not exist. Reads YAML from standard input; prints what is wrong, and ends with 1.
"""

import importlib
import sys

import yaml
from pydantic import ValidationError

MODELS = {
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}


def lost(before, after, path):
    """Paths of what is in `before` and not in `after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from lost(value, after[key], f"{path}.{key}")
            else:
                yield f"{path}.{key} does not exist"
    elif isinstance(before, list) and isinstance(after, list):
        for index, pair in enumerate(zip(before, after)):
            yield from lost(*pair, f"{path}[{index}]")


def mistakes(document):
    module = MODELS.get(document["apiVersion"])
    if module is None:
        return
    model = getattr(importlib.import_module(module), document["kind"], None)
    if model is None:
        yield f"there is no kind {document['kind']}"
        return
    try:
        read = model.model_validate(document)
    except ValidationError as error:
        yield str(error)
        return
    yield from lost(document, read.model_dump(mode="json", by_alias=True, exclude_unset=True), "")


documents = [document for document in yaml.safe_load_all(sys.stdin) if document]
found = [
    f"{document['kind']}/{document['metadata']['name']}: {mistake}"
    for document in documents
    for mistake in mistakes(document)
]
print("\n".join(found), end="")
sys.exit(1 if found else 0)
