"""The agent with a store that does not sync its log on commit: what the durability test must see fail."""

import functools
import sys

from gateway import app
from gateway.cli.main import main

app.Store = functools.partial(app.Store, synchronous="NORMAL")  # type: ignore[misc,assignment]

if __name__ == "__main__":
    sys.exit(main())
