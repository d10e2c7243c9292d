"""Law suites that whoever adds a metric, format, runtime, solver or exporter inherits."""
