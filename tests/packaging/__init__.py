"""What is installed: wheel, source distribution, systemd unit."""
