"""The dashboards that are shipped, as files and asked of real servers."""
