"""What Prometheus makes of the configuration that is shipped, and of the exporter."""
