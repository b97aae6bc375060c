import sys

from ext_proc.cli import main

sys.exit(main())
