"""What the server tells about itself: every metric name and log field is in this package."""

from ext_proc.telemetry.recorder import Telemetry

__all__ = ["Telemetry"]
