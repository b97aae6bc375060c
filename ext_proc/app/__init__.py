"""Where the boxes meet: every object made, put in force, let go, started and stopped in order."""

from ext_proc.app.engine import serve_engine
from ext_proc.app.routers import build_live
from ext_proc.app.serve import serve
from ext_proc.rollouts.build import standings

__all__ = ["build_live", "serve", "serve_engine", "standings"]
