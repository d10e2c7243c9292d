"""Write the OpenAPI document that is checked in: `python -m mpsearch.api.document FILE`."""

import json
import sys
from pathlib import Path

from mpsearch.api.app import build_app
from mpsearch.api.settings import Settings
from mpsearch.jobs.data_folder import DataFolder


def document() -> str:
    """Return the document as it is checked in."""
    application = build_app(Settings(data=DataFolder(path=Path("nowhere"))))
    return json.dumps(application.openapi(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document())
