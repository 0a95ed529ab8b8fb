"""``python -m exporter`` is ``hakgal-exporter``."""

import sys

from exporter.cli import main

sys.exit(main())
